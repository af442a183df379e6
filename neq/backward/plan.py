"""The plan: what training calls in place of the network, derived from network, selection and norm mode."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from neq.backward.activations import Smooth, activation_of
from neq.backward.attention import RecomputeMode, fuse_attention
from neq.backward.batch_norms import (
    BatchStatsNorm,
    FrozenNorm,
    frozen_batch_norm,
    is_plain_batch_norm,
    split_batch_norm,
)
from neq.backward.fixed_prefix import FixedPrefix, planned_prefix
from neq.backward.fusion import Block, Trace, is_split, traced
from neq.backward.gate import GateProduct
from neq.backward.max_pool import is_max_pool, max_pool
from neq.backward.module_views import SharedAttributes, StandInParameters, shadow, view
from neq.backward.recomputable import batch_stats_norm, recomputable_activation, recomputable_norm
from neq.backward.recompute import mark_input
from neq.backward.segments import Segments, cuts_at, norms_of, statistics_kept
from neq.backward.stand_ins import stand_in
from neq.backward.standalone_activation import standalone_clamp
from neq.backward.sync_batch_norm import BatchSplit
from neq.backward.trainable import checked, trainable_slices, trained_values
from neq.backward.trainable_layer import TrainableLayer
from neq.backward.trainable_slices import TrainableSlices
from neq.networks.graph import has_hooks
from neq.networks.layer_kinds import LINEAR, WHOLE, LayerKind
from neq.networks.library_layers import torch_class, within
from neq.networks.neurons import NORMS, NeuronTable, Selection
from neq.networks.parameter_slice import ParameterSlice
from neq.utils.errors import UserError, unknown_name

# Type that layers' inputs are kept in; None: their own.
SAVED_PRECISIONS: dict[str, torch.dtype | None] = {"exact": None, "bf16": torch.bfloat16}


class Plan:
    """A network of which only a selection trains, at the cost of the selection.

    The plain network keeps owning every weight: evaluate, save and export that one. Call the plan like the
    network while training (it is in train mode whatever the network's mode), pass `parameters()` to any
    optimizer, and call `write_back()` after each step: chosen slices of weights are small leaves of their
    own, which it copies into the network's weights. Move the network to its device before the plan is made.

    Args:
        network: any module; its tensors are used in place. What trains does so whatever requires_grad was;
            gradients left on parameters that do not train are dropped.
        table: its neurons.
        selection: layer name -> chosen channels, ascending.
        norm_mode: "train" (batch statistics, all affines train), "frontier" (batch statistics; affines train
            from the earliest chosen layer on, in the order of calls), or "frozen" (running statistics,
            affines frozen).
        bias_layers: layers whose bias trains whole; in norm mode "frozen", where a norm takes the layer's
            output, that norm's bias too.
        saved_precision: "exact", or "bf16": inputs of layers are rounded to it where they are kept for the
            gradients of the chosen channels.
        batch: where several processes split each batch: how batch norms get the statistics of all of it; or
            groups of images that they see one by one. Norms with a forward of their own, and those without
            running statistics, see all that the plan is called with.
        cuts: layers or norms before which the network is cut into segments: all but the last keep their input
            alone and run again in backward.
        train_head: whether the head trains, as a whole.

    Attributes:
        parts: what trains: name of a parameter -> which slice of it.
        stand_ins: layer name -> the module that computes it when the plan is called.
        segments: of the network; none where it is not cut.

    Raises:
        UserError: unknown norm mode, layer, channel, precision or cut, or a kind of layer without a stand-in.
    """

    def __init__(
        self,
        network: nn.Module,
        table: NeuronTable,
        selection: Selection,
        norm_mode: str = "frontier",
        bias_layers: Collection[str] = (),
        saved_precision: str = "exact",
        batch: BatchSplit | None = None,
        cuts: Sequence[str] = (),
        train_head: bool = True,
    ) -> None:
        self.network = network
        self.table = table
        self.norm_mode, self._batch, self._cuts = norm_mode, batch, cuts
        self._train_head = train_head
        self.segments: Segments | None = None
        self._traced: tuple[nn.Module, Trace] | None = None
        self._bias_layers, self._saved_precision = bias_layers, saved_precision
        if saved_precision not in SAVED_PRECISIONS:
            raise unknown_name("saved_precision", saved_precision, SAVED_PRECISIONS)
        self._saved_dtype = SAVED_PRECISIONS[saved_precision]
        self.selection = checked(table, selection)
        self.parts = trainable_slices(network, table, self.selection, norm_mode, bias_layers, train_head)
        self._leaves = TrainableSlices(network, self.parts)
        self.stand_ins: dict[str, nn.Module] = {}
        made = self._layerwise()
        self._module = self._view(made)
        self._attributes = SharedAttributes(made)
        has_linear = any(layer.kind is LINEAR for layer in table.layers)
        self._mode = RecomputeMode() if has_linear else contextlib.nullcontext()
        # Compiling a plan would take minutes, anew each time neurons are chosen.
        self._uncompiled = torch.compiler.disable(self._forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._uncompiled(*args, **kwargs)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        for given in args:
            mark_input(given)
        with self._called():
            return self._module(*args, **kwargs)

    @contextlib.contextmanager
    def _called(self) -> Iterator[None]:
        """The context in which the view's modules are called."""
        self._leaves.reconcile()
        with self._attributes.shared(), self._mode:
            yield

    def fixed_prefix(self, at: str | None = None) -> FixedPrefix | None:
        """The part of the network below all that trains, whose maps of the same images stay the same.

        Args:
            at: the point of another plan's prefix, to end there; None: as late as it can.

        Returns:
            None: nothing is fixed (the first layer trains, batch norms use the statistics of the batch), the
            network could not be traced, or it is cut into segments.
        """
        if self._traced is None or self._cuts:
            return None
        return planned_prefix(self.network, *self._traced, self.parts, self.norm_mode, at, self._called)

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        """A plan of a copy of the network, with the same gradients."""
        self._leaves.reconcile()
        copied = Plan(
            copy.deepcopy(self.network, memo), self.table, self.selection, self.norm_mode, self._bias_layers,
            self._saved_precision, self._batch, self._cuts, self._train_head,
        )  # fmt: skip
        for leaf, mine in zip(copied.parameters(), self.parameters(), strict=True):
            leaf.grad = None if mine.grad is None else mine.grad.clone()
        return copied

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that trains, by the name of the network's parameter that it is, or is a slice of."""
        return iter(self._leaves.by_name.items())

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that trains: chosen channels and their biases, the norms of the norm mode, the head."""
        return iter(self._leaves.by_name.values())

    def trained_values(self) -> dict[str, int]:
        """How many values train: chosen weights, biases of selectable layers, norms, head."""
        return trained_values(self.network, self.table, self.parts)

    def write_back(self) -> None:
        """Copies the chosen slices into the plain network; call it after every optimizer step."""
        self._leaves.write_back()

    def _view(self, made: dict[nn.Module, nn.Module]) -> nn.Module:
        """The network as training calls it: fused where it could be traced, else layer by layer."""
        trace = traced(self.network, self.table)
        if trace is None and self._cuts:
            raise UserError(
                f"{type(self.network).__name__} cannot be traced and so not be cut into segments; "
                "leave checkpoint_segments out"
            )
        if trace is None:
            for module in filter(is_split, made):
                made[module] = nn.Sequential(made[module], *map(shadow, within(module)))
            root = view(self.network, made)
            fuse_attention(root)
            return root
        root = view(self.network, made)

        def apart(modules: Iterable[nn.Module]) -> nn.Module:
            return nn.Sequential(*(made.get(module) or shadow(module) for module in modules))

        for name, module in trace.added.items():
            root._modules[name] = made.get(module) or shadow(module)
        kinds = {layer.name: layer.kind for layer in self.table.layers}
        for block in trace.blocks:
            fused = self._fused(block, kinds) or apart(block.modules)
            root._modules[block.placeholder] = self.stand_ins[block.conv] = fused
        for alone in trace.standalone:
            root._modules[alone.placeholder] = (
                apart(alone.modules)
                if any(map(has_hooks, alone.modules))
                else standalone_clamp(alone.activation, self._is_kept(alone.readers, kinds))
            )
        for name in trace.gates:
            root._modules[name] = GateProduct()
        root.forward = MethodType(trace.forward, root)
        self._traced = root, trace
        if self._cuts:
            again = partial(self._again, norms_of(self.network, root))
            root.forward = self.segments = Segments(
                root, trace.graph, cuts_at(trace.cut_points, self._cuts), again
            )
        return root

    @contextlib.contextmanager
    def _again(self, norms: Sequence[_NormBase]) -> Iterator[None]:
        """The context in which a segment runs again."""
        with self._attributes.shared(), self._mode, statistics_kept(norms):
            yield

    def _layerwise(self) -> dict[nn.Module, nn.Module]:
        """The view's own modules, each alone: selectable layers, norms and the head."""
        made: dict[nn.Module, nn.Module] = {}
        for layer in self.table.layers:
            module = self.network.get_submodule(layer.name)
            trains = self._trains(layer.name, module, self._saved_dtype)
            made[module] = self.stand_ins[layer.name] = stand_in(layer.kind).build(module, trains)
        for module in self.network.modules():
            if isinstance(module, NORMS):
                made[module] = self._norm(module)
            if is_max_pool(module) and not has_hooks(module):
                made[module] = max_pool(module)
            activation = activation_of(module)
            if isinstance(activation, Smooth) and not getattr(module, "inplace", False):
                made[module] = recomputable_activation(shadow(module), activation)
        head = self.network.get_submodule(self.table.head)
        if self._train_head or self.table.head_kind is not WHOLE:  # of which a view freezes all within
            trains = self._trains(self.table.head, head, None)
            made[head] = stand_in(self.table.head_kind).build(head, trains)
        for name, module in self.network.named_modules():
            if module in made:  # read elsewhere too, they are whole
                vars(made[module])["_parameters"] = self._parameters(name, module)
        return made

    def _fused(self, block: Block, kinds: Mapping[str, LayerKind]) -> nn.Module | None:
        """Layer, norm and activation as one; None where nothing follows the layer, or a module has hooks."""
        if any(map(has_hooks, block.modules)) or (block.norm is None and block.activation is None):
            return None
        module = self.network.get_submodule(block.conv)
        trains = self._trains(block.conv, module, self._saved_dtype)
        norm = None if block.norm is None else self._norm_of_block(block.norm)
        fuse = stand_in(kinds[block.conv]).fuse
        assert fuse is not None, "the trace fuses no other layers"
        is_kept = block.is_pooled or self._is_kept(block.readers, kinds)
        return fuse(module, trains, norm, block.activation, is_kept)

    def _norm_of_block(self, name: str) -> FrozenNorm | BatchStatsNorm:
        norm = self.network.get_submodule(name)
        assert is_plain_batch_norm(norm)
        if self.norm_mode == "frozen":
            return FrozenNorm(norm, self._norm_bias(norm))
        return BatchStatsNorm(norm, shadow(norm, self._leaves.in_place(norm)), self._batch)

    def _is_kept(self, readers: tuple[str, ...], kinds: Mapping[str, LayerKind]) -> bool:
        """Whether a layer that reads a result keeps all of it, as it is, for its own backward."""
        if self._saved_dtype is not None:
            return False
        for name in readers:
            part = self.parts.get(f"{name}.weight")
            groups = kinds[name].groups(self.network.get_submodule(name))
            if part is not None and (part.is_whole or (groups == 1 and part.axis == 0)):
                return True
        return False

    def _trains(self, name: str, module: nn.Module, saved_dtype: torch.dtype | None) -> TrainableLayer:
        """What trains in a layer."""
        part = self.parts.get(f"{name}.weight")
        weight = None if part is None else self._leaves.by_name[f"{name}.weight"]
        bias, in_place = self._bias(name, module), self._leaves.in_place(module)
        return TrainableLayer(weight, part or ParameterSlice(), bias, saved_dtype, in_place)

    def _bias(self, name: str, module: nn.Module) -> Callable[[], Tensor | None]:
        """A function that returns a layer's bias at each call, with whatever trains in it."""
        if module._parameters.get("bias") is None:
            return lambda: None
        parameters = self._parameters(name, module)
        return lambda: parameters["bias"]

    def _parameters(self, name: str, module: nn.Module) -> StandInParameters:
        """A module's own parameters, with what trains in them."""
        leaves: dict[str, tuple[ParameterSlice, Tensor]] = {}
        in_place = self._leaves.in_place(module)
        for key, parameter in module._parameters.items():
            full = f"{name}.{key}"
            if full in self.parts:
                leaves[key] = self.parts[full], self._leaves.by_name[full]
            elif parameter is not None and key in in_place:
                leaves[key] = ParameterSlice(), parameter
        return StandInParameters(module._parameters, leaves)

    def _norm(self, module: nn.Module) -> nn.Module:
        """A norm alone: what is within it follows, unless it computes otherwise or has hooks."""
        is_alone = not within(module) or is_split(module)
        if self.norm_mode == "frozen" and is_alone and is_plain_batch_norm(module):
            return frozen_batch_norm(FrozenNorm(module, self._norm_bias(module)))
        made = shadow(module, self._leaves.in_place(module))
        made.training = self.norm_mode != "frozen"
        if not is_alone or (kind := torch_class(module)) is None:
            return made
        if type(module).forward is not kind.forward:
            made.__class__ = kind
        if made.training and self._batch is not None and is_plain_batch_norm(module):
            return split_batch_norm(BatchStatsNorm(module, made, self._batch))
        if isinstance(made, (nn.LayerNorm, nn.GroupNorm)):
            return recomputable_norm(made)
        return batch_stats_norm(made) if made.training else made

    def _norm_bias(self, module: nn.Module) -> Tensor | None:
        """The leaf of a norm's bias, where it trains."""
        return module._parameters["bias"] if "bias" in self._leaves.in_place(module) else None
