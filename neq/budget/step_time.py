"""The time of a training step of any batch, micro-batch, cuts and selection, fitted to a few measured steps.

    t = o p + a m + c w

with p passes (forward and backward of a micro-batch), m the multiply-accumulates of all of them, what runs
again among them, and w the bytes of all tensors that they make. `neq.budget.latency` predicts more closely
how the time of one kind of step depends on single neurons; this one holds across kinds of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import nn

from neq.budget.cost_model import CostModel
from neq.budget.latency import measure
from neq.budget.peak import Work
from neq.budget.step_spec import StepSpec
from neq.networks.neurons import NeuronTable

# Steps that are measured, and the fewest images of one: batch norms need two where a map is one pixel.
_STEPS, _LEAST = 5, 2


@dataclass(frozen=True)
class StepTime:
    """The fitted time of a network's steps on a device.

    Args:
        of_pass, of_mac, of_byte: seconds.
        error: the largest relative error over the steps that it was fitted to.
    """

    of_pass: float
    of_mac: float
    of_byte: float
    error: float

    def __post_init__(self) -> None:
        if not all(isinstance(value, float) and 0 <= value < math.inf for value in vars(self).values()):
            raise ValueError("the time of a step has coefficients that are no times")

    @classmethod
    def fit(cls, steps: Sequence[tuple[int, Work]], seconds: Sequence[float]) -> Self:
        """The least squares of relative errors, with coefficients of 0 or more.

        Args:
            steps: of each the number of passes, and the work of all of them.
            seconds: that each took.
        """
        from scipy.optimize import nnls

        amounts = torch.tensor([(p, work.macs, work.written) for p, work in steps], dtype=torch.float64)
        relative = amounts / torch.tensor(seconds, dtype=torch.float64)[:, None]
        scale = relative.amax(0)
        found, _ = nnls((relative / scale).numpy(), torch.ones(len(steps)).numpy())
        weights = torch.from_numpy(found) / scale
        of_pass, of_mac, of_byte = weights.tolist()
        return cls(of_pass, of_mac, of_byte, float((relative @ weights - 1).abs().max()))

    def seconds(self, passes: int, work: Work) -> float:
        """The time of a step.

        Args:
            passes: forward and backward passes of the step.
            work: of all of them together.
        """
        return self.of_pass * passes + self.of_mac * work.macs + self.of_byte * work.written


def calibrate_step_time(
    network: nn.Module,
    table: NeuronTable,
    spec: StepSpec,
    device: torch.device,
    fits: Callable[[int], bool] = lambda size: True,
) -> StepTime:
    """Measures five steps of at most one batch, and fits the time of a step to them.

    They train everything: at once, in micro-batches, and in as many segments as there can be; and the last
    half of the layers, and every eighth neuron. Where these do not fit they have fewer images; where they do
    not fit with two images either, steps that train less take the place of those that are too large.

    Args:
        network: is left as it was.
        table: its neurons.
        spec: of the step; its batch in micro-batches where a whole one does not fit.
        device: that trains.
        fits: whether there is room for tensors of so many bytes, the network's among them.
    """
    images = spec.micro_batch or spec.batch_size
    kinds = _kinds(network, table, spec, images)
    while images > _LEAST and not all(fits(_bytes(*each)) for each in kinds[:_STEPS]):
        images = max(_LEAST, images // 2)
        kinds = _kinds(network, table, spec, images)
    if images <= _LEAST:
        least = min(kinds, key=lambda each: _bytes(*each))
        kinds = [each for each in kinds if fits(_bytes(*each))] or [least]
    steps = [work_of_step(*each) for each in kinds[:_STEPS]]
    seconds = [second for model, chosen in kinds[:_STEPS] for second in measure(model, [chosen], device)]
    return StepTime.fit(steps, seconds)


def _kinds(
    network: nn.Module, table: NeuronTable, spec: StepSpec, images: int
) -> list[tuple[CostModel, torch.Tensor]]:
    """Steps of a number of images, and what trains in them, bool [N]; the preferred ones first."""
    layers = sorted(table.layers, key=lambda layer: layer.order)

    def late(share: int) -> torch.Tensor:
        last = layers[len(layers) - len(layers) // share :]
        return table.mask({each.name: torch.arange(each.neurons) for each in last})

    base = replace(spec, micro_batch=None, checkpoint_segments=1, checkpoint_cuts=()).with_batch_size(images)
    whole = CostModel(network, table, base)
    parts = whole.with_spec(replace(base, micro_batch=max(min(images, _LEAST), -(-images // 4))))
    cut = whole.with_spec(replace(base, checkpoint_cuts=whole.cut_points))
    everything, nothing = torch.ones(len(table), dtype=torch.bool), torch.zeros(len(table), dtype=torch.bool)
    return [
        *((whole, everything), (parts, everything), (cut, everything)),
        *((whole, late(2)), (whole, torch.arange(len(table)) % 8 == 0)),
        *((parts, late(2)), (whole, late(8)), (parts, late(8)), (whole, nothing), (parts, nothing)),
    ]


def _bytes(model: CostModel, chosen: torch.Tensor) -> int:
    """Bytes of all tensors while a step is measured, on a copy of the network."""
    spec, selection = model.spec, model.table.selection(chosen)
    profile = model.profile(selection)
    network = sum(each.nbytes for each in (*model.network.parameters(), *model.network.buffers()))
    peak = profile.peak(spec.kept_together, model.cuts(selection), spec.parts > 1)
    return network + profile.held + peak + 4 * sum(spec.kept_together) * math.prod(spec.image_shape)


def work_of_step(model: CostModel, chosen: torch.Tensor) -> tuple[int, Work]:
    """Passes of a step, and the work of all of them.

    Args:
        model: of the step.
        chosen: bool [N].
    """
    spec, selection = model.spec, model.table.selection(chosen)
    work = model.profile(selection).work(spec.kept_together, model.cuts(selection))
    return spec.parts, Work(*(spec.parts * each for each in work))
