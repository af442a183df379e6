"""What a plan's training step costs, without running one.

Operations are counted in closed form. What is kept for backward is read off forward passes of the plan over
fake tensors, exact for every norm mode, network and precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from torch import nn

from neq.backward.fusion import traced
from neq.backward.plan import Plan
from neq.backward.trainable import values_of
from neq.budget.peak import StepProfile
from neq.budget.saved_tensors import Kept, fake_copy, kept_for_backward
from neq.budget.step_spec import STATE_PER_VALUE, StepSpec
from neq.budget.step_trace import trace_step
from neq.networks.layer_kinds import ByteWidths
from neq.networks.neurons import NeuronTable, Selection
from neq.networks.parameter_slice import ParameterSlice, named_tensor


@dataclass(frozen=True)
class StepCost:
    """One training step of a plan. Layers are the selectable ones and the head.

    Args:
        parameters: weights of selectable neurons that train.
        values: everything that trains: those, biases, norms and head.
        forward_macs: multiply-accumulates of the layers' forward passes, for all images of the step.
        input_gradient_macs: of their input gradients.
        weight_gradient_macs: of the chosen neurons' and the head's weight gradients.
        saved_bytes: kept from forward for backward, weights and the caller's inputs apart.
        gradient_bytes: of all that trains.
        optimizer_bytes: of the optimizer's state for all that trains, and of its moving average.
    """

    parameters: int
    values: int
    forward_macs: int
    input_gradient_macs: int
    weight_gradient_macs: int
    saved_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates of the step."""
        return self.forward_macs + self.backward_macs

    @property
    def backward_macs(self) -> int:
        """Multiply-accumulates of the backward pass: what a budget in MACs limits."""
        return self.input_gradient_macs + self.weight_gradient_macs

    @property
    def training_bytes(self) -> int:
        """What training needs beside the weights and the input: what a budget in bytes limits."""
        return self.saved_bytes + self.gradient_bytes + self.optimizer_bytes


class CostModel:
    """The cost of any selection of a network, for one kind of training step.

    Args:
        network: the plain network; it is left as it was.
        table: its neurons.
        spec: of the step.
    """

    def __init__(self, network: nn.Module, table: NeuronTable, spec: StepSpec) -> None:
        self.plain_network = network
        self.table = table
        self.spec = spec
        # Of the selection asked for last: its cost, its plan and its record ask in turn.
        self._last_profile: tuple[bytes, StepProfile] | None = None
        self._states = STATE_PER_VALUE[spec.optimizer]
        self._kinds = {layer.name: layer.kind for layer in table.layers} | {table.head: table.head_kind}

    @cached_property
    def network(self) -> nn.Module:
        """The network without its values."""
        return fake_copy(self.plain_network)

    def with_spec(self, spec: StepSpec) -> CostModel:
        """The cost of the same network's steps under another specification.

        Args:
            spec: of the step.
        """
        other = CostModel(self.plain_network, self.table, spec)
        other.network = self.network
        return other

    @property
    def head_gradient_macs(self) -> int:
        """Multiply-accumulates of the head's weight gradient for one image; 0 where it does not train."""
        return self.table.head_macs if self.spec.train_head else 0

    def step(self, selection: Selection) -> StepCost:
        """What a step costs.

        Args:
            selection: layer name -> chosen channels.
        """
        cuts = self.cuts(selection)
        plan = self.spec.plan(self.network, self.table, selection, cuts=cuts)
        trained = plan.trained_values()
        values = sum(trained.values())
        passed_on = input_gradient_macs(self.table, plan.parts)
        gradient_bytes, optimizer_bytes = self.held_bytes(plan.parts)
        chosen = self.table.mask(plan.selection)
        images = self.spec.images
        return StepCost(
            parameters=trained["weights"],
            values=values,
            forward_macs=images * (self.table.total_macs + self.table.head_macs),
            input_gradient_macs=images * sum(passed_on.values()),
            weight_gradient_macs=images * (int(self.table.macs[chosen].sum()) + self.head_gradient_macs),
            saved_bytes=self._kept_bytes(plan, cuts) + self.spec.extra_saved_bytes,
            gradient_bytes=gradient_bytes + self.spec.extra_bytes,
            optimizer_bytes=optimizer_bytes + self.spec.extra_bytes * self._states,
        )

    def cuts(self, selection: Selection) -> tuple[str, ...]:
        """Where the step's network is cut into segments: as specified, or where its peak is lowest.

        Args:
            selection: layer name -> chosen channels.
        """
        spec = self.spec
        if spec.checkpoint_cuts or spec.checkpoint_segments == 1:
            return spec.checkpoint_cuts
        if not (points := self.cut_points):
            return ()
        profile, images = self.profile(selection), max(spec.kept_together)
        return profile.best_cuts(images, spec.checkpoint_segments, spec.parts > 1, points=points)

    @cached_property
    def cut_points(self) -> tuple[str, ...]:
        """Layers and norms before which neq cuts the network: where gradients stay the same, if it can."""
        trace = traced(self.network, self.table)
        points = () if trace is None else tuple(trace.cut_points)
        exact = tuple(name for name in points if trace is not None and name not in trace.inexact)
        return exact if exact and self.spec.norm_mode != "frozen" else points

    def profile(self, selection: Selection) -> StepProfile:
        """Memory and work of steps of any batch, micro-batch and cuts.

        Args:
            selection: layer name -> chosen channels.
        """
        key = self.table.mask(selection).numpy().tobytes()
        if self._last_profile is None or self._last_profile[0] != key:
            self._last_profile = key, self._profile(selection)
        return self._last_profile[1]

    def _profile(self, selection: Selection) -> StepProfile:
        table, spec, trace = self.table, self.spec, traced(self.network, self.table)
        names = () if trace is None else tuple(trace.cut_points)
        units = trace_step(self.network, table, selection, spec, names)
        parts = spec.trainable_slices(self.network, table, selection)
        rows, _ = self.held_bytes({name: part for name, part in parts.items() if not part.is_whole})
        tensors = chain(self.network.parameters(), self.network.buffers())
        held = rows + self.held_bytes(parts)[1] + sum(each.nbytes for each in tensors)
        forward = {layer.name: layer.neurons * layer.macs for layer in table.layers}
        passed = input_gradient_macs(table, parts)
        chosen = {layer.name: len(selection.get(layer.name, ())) * layer.macs for layer in table.layers}
        first = {name: n for n, unit in reversed(list(enumerate(units))) for name in unit.layers}
        macs = [[0, 0] for _ in units]
        for name in forward:
            macs[first[name]][0] += forward[name]
            macs[first[name]][1] += passed[name] + chosen[name]
        macs[-1][0] += table.head_macs
        macs[-1][1] += self.head_gradient_macs + passed[table.head]
        return StepProfile(
            tuple(units), names, spec.ghost_batch, held, *(tuple(each) for each in zip(*macs, strict=True))
        )

    def _kept_bytes(self, plan: Plan, cuts: Sequence[str]) -> int:
        """The most that a plan's step finds kept for backward at once."""
        if not cuts:
            return kept_for_backward(plan, self.spec).bytes
        return self.profile(plan.selection).kept(self.spec.kept_together, cuts)

    def held_bytes(self, parts: Mapping[str, ParameterSlice]) -> tuple[int, int]:
        """Bytes of gradients, and of the optimizer's state.

        Args:
            parts: what trains, as `trainable_slices` returns it.
        """
        gradients = state = 0
        for name, part in parts.items():
            values = values_of(self.network, name, part)
            width = self._widths(name)
            gradients += values * width.gradient
            state += values * width.state * (self._states + self.spec.copies)
        return gradients, state

    def bytes_per_value(self, name: str) -> int:
        """Bytes of the gradient and of the optimizer's state for one value of a parameter that trains."""
        width = self._widths(name)
        return width.gradient + width.state * (self._states + self.spec.copies)

    def _widths(self, name: str) -> ByteWidths:
        """Of a parameter: of a layer's weight what its kind states, elsewhere those of the parameter."""
        owner, _, key = name.rpartition(".")
        if key == "weight" and owner in self._kinds:
            return self._kinds[owner].widths(self.network.get_submodule(owner))
        width = named_tensor(self.network, name).element_size()
        return ByteWidths(width, width)

    def kept(self, selection: Selection) -> Kept:
        """What the forward passes keep for backward where nothing is recomputed, layer by layer.

        Args:
            selection: layer name -> chosen channels.
        """
        return kept_for_backward(self.spec.plan(self.network, self.table, selection), self.spec)


def input_gradient_macs(table: NeuronTable, parts: Mapping[str, ParameterSlice]) -> dict[str, int]:
    """Multiply-accumulates of each layer's input gradient for one image, by layer, the head included.

    A layer passes a gradient on if something that is called before its last call trains: as if the layers
    were one behind another, so that a parallel branch counts though no gradient passes it.

    Args:
        table: the network's neurons.
        parts: what trains, as `trainable_slices` returns it.
    """
    start = earliest_trained(table, parts)
    macs = {layer.name: layer.neurons * layer.macs for layer in table.layers}
    last = {layer.name: layer.last for layer in table.layers}
    return {name: macs[name] if start is not None and last[name] > start else 0 for name in macs} | {
        table.head: 0 if start is None else table.head_macs
    }


def earliest_trained(table: NeuronTable, parts: Mapping[str, ParameterSlice]) -> int | None:
    """The position of the first call of a layer or norm that trains; None: only the head trains."""
    order = {layer.name: layer.order for layer in table.layers} | dict(table.norm_order)
    owners = {name.rpartition(".")[0] for name in parts}
    return min((order[owner] for owner in owners if owner in order), default=None)
