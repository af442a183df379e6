"""The plan: what training calls in place of the network, derived from network, selection and norm mode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import module_views as layers
from neq.backward.fusion import Block, has_hooks, traced
from neq.backward.sync_batch_norm import SharedBatch
from neq.backward.trainable import checked, trained_parts, trained_values
from neq.backward.trainable_slices import TrainableSlices
from neq.networks.neurons import NORMS, NeuronTable, Selection
from neq.networks.parameter_slice import ParameterSlice
from neq.utils.errors import unknown_name

# Type that layers' inputs are kept in; none: their own.
SAVED_PRECISIONS: dict[str, torch.dtype | None] = {"exact": None, "bf16": torch.bfloat16}


class Plan:
    """A network of which only a selection trains, at the cost of the selection.

    The plain network keeps owning every weight: evaluate, save and export that one. Call the plan like the
    network while training (it is in train mode whatever the network's mode), give `parameters()` to any
    optimizer, and call `write_back()` after each step: chosen rows are small leaves of their own, and it
    copies them into the network's weights. Move the network to its device before the plan is made.

    Args:
        network: any module; its tensors are used in place. What trains does so whatever requires_grad
            said; gradients left on parameters that do not train are dropped.
        table: its neurons.
        selection: layer name -> chosen channels, ascending. The head always trains.
        norm_mode: "train" (batch statistics, all affines train), "frontier" (batch statistics; affines train
            from the earliest chosen layer on, in the order of calls), or "frozen" (running statistics,
            affines frozen).
        bias_layers: layers whose bias trains whole; in norm mode "frozen", where a norm takes the layer's
            output, that norm's bias too.
        saved_precision: "exact", or "bf16": inputs of layers are rounded to it where they are kept for the
            gradients of the chosen rows.
        batch: where several processes share each batch: how batch norms learn what the others' shares hold.
            Norms with a forward of their own, and those without running statistics, see their share alone.

    Attributes:
        parts: what trains: name of a parameter -> which part of it.
        stand_ins: layer name -> the module that computes it when the plan is called.

    Raises:
        UserError: unknown norm mode, layer, channel or precision.
    """

    def __init__(
        self,
        network: nn.Module,
        table: NeuronTable,
        selection: Selection,
        norm_mode: str = "frontier",
        bias_layers: Collection[str] = (),
        saved_precision: str = "exact",
        batch: SharedBatch | None = None,
    ) -> None:
        self.network = network
        self.table = table
        self.norm_mode, self._batch = norm_mode, batch
        if saved_precision not in SAVED_PRECISIONS:
            raise unknown_name("saved_precision", saved_precision, SAVED_PRECISIONS)
        self._stored = SAVED_PRECISIONS[saved_precision]
        self.selection = checked(table, selection)
        self.parts = trained_parts(network, table, self.selection, norm_mode, bias_layers)
        self._leaves = TrainableSlices(network, self.parts)
        self.stand_ins: dict[str, nn.Module] = {}
        self._module = self._view()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._leaves.reconcile()
        return self._module(*args, **kwargs)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that trains, by the name of the network's parameter that it is, or is a part of."""
        return iter(self._leaves.by_name.items())

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that trains: chosen rows and their biases, the norms of the norm mode, the head."""
        return iter(self._leaves.by_name.values())

    def trained_values(self) -> dict[str, int]:
        """How many values train: chosen weights, biases of selectable layers, norms, head."""
        return trained_values(self.network, self.table, self.parts)

    def write_back(self) -> None:
        """Copies the chosen rows into the plain network; to be called after every optimizer step."""
        self._leaves.write_back()

    def _view(self) -> nn.Module:
        """The network as training calls it: fused where it could be traced, else layer by layer."""
        made = self._layerwise()
        trace = traced(self.network, self.table)
        if trace is None or any(map(has_hooks, (self.network, *trace.containers))):
            return layers.view(self.network, made)
        for block in trace.blocks:
            made[block.placeholder] = self._fused(block) or nn.Sequential(
                *(made.get(part) or layers.shadow(part) for part in block.parts)
            )
            self.stand_ins[block.conv] = made[block.placeholder]
        for lone in trace.lone:
            made[lone.placeholder] = (
                nn.Sequential(*map(layers.shadow, lone.parts))
                if any(map(has_hooks, lone.parts))
                else layers.clamp(lone.activation, self._is_kept(lone.readers))
            )
        return layers.view(trace.module, made)

    def _layerwise(self) -> dict[nn.Module, nn.Module]:
        """The view's own modules, each alone: selectable layers, norms and the head."""
        made: dict[nn.Module, nn.Module] = {}
        for layer in self.table.layers:
            module = self.network.get_submodule(layer.name)
            made[module] = self.stand_ins[layer.name] = self._selectable(layer.name, module)
        for name, module in self.network.named_modules():
            if isinstance(module, NORMS):
                made[module] = self._norm(name, module)
        head = self.network.get_submodule(self.table.head)
        made[head] = layers.shadow(head, self._trained_keys(self.table.head))
        return made

    def _fused(self, block: Block) -> nn.Module | None:
        """Convolution, norm and activation as one; none where only one of them is there, or one has hooks."""
        if any(map(has_hooks, block.parts)) or (block.norm is None and block.activation is None):
            return None
        module = self.network.get_submodule(block.conv)
        assert isinstance(module, nn.Conv2d)
        trained = self._trained(block.conv, module)
        if block.norm is None:
            return layers.conv(module, trained, None, block.activation, self._is_kept(block.readers))
        norm = self.network.get_submodule(block.norm)
        assert layers.is_plain_batch_norm(norm)
        if self.norm_mode == "frozen":
            frozen = layers.FrozenNorm(norm, self._norm_bias(block.norm, norm))
            return layers.conv(module, trained, frozen, block.activation, self._is_kept(block.readers))
        affine = layers.shadow(norm, self._trained_keys(block.norm))
        return layers.conv_norm(module, trained, norm, affine, block.activation, self._batch)

    def _is_kept(self, readers: tuple[str, ...]) -> bool:
        """Whether a convolution that reads a result keeps all of it, as it is, for its own backward."""
        if self._stored is not None:
            return False
        for name in readers:
            module = self.network.get_submodule(name)
            part = self.parts.get(f"{name}.weight")
            if part is not None and (part.is_whole or (module.groups == 1 and part.axis == 0)):
                return True
        return False

    def _selectable(self, name: str, module: nn.Module) -> nn.Module:
        part = self.parts.get(f"{name}.weight")
        if part is not None and part.is_whole and self._stored is None:
            # All rows: the network's own parameters train, through stock operations.
            return layers.shadow(module, self._trained_keys(name))
        trained = self._trained(name, module)
        if isinstance(module, nn.Conv2d):
            return layers.conv(module, trained)
        assert isinstance(module, nn.Linear)
        return layers.linear(module, trained)

    def _trained(self, name: str, module: nn.Module) -> layers.Trained:
        """What trains in a selectable layer."""
        part = self.parts.get(f"{name}.weight")
        rows = None if part is None else self._leaves.by_name[f"{name}.weight"]
        bias = self._bias(f"{name}.bias", module._parameters["bias"])
        return layers.Trained(rows, part or ParameterSlice(), bias, self._stored)

    def _bias(self, name: str, bias: Tensor | None) -> Callable[[], Tensor | None]:
        """Gives a layer's bias at each call, with whatever trains in it."""
        if bias is None:
            return lambda: None
        if name not in self.parts:
            return bias.detach
        part, leaf = self.parts[name], self._leaves.by_name[name]
        if part.index is None:
            return lambda: leaf
        index = part.index.to(bias.device)
        return lambda: bias.detach().index_copy(0, index, leaf)

    def _norm(self, name: str, module: nn.Module) -> nn.Module:
        if self.norm_mode == "frozen" and layers.is_plain_batch_norm(module):
            return layers.frozen_batch_norm(layers.FrozenNorm(module, self._norm_bias(name, module)))
        made = layers.shadow(module, self._trained_keys(name))
        made.training = self.norm_mode != "frozen"
        if made.training and self._batch is not None and layers.is_plain_batch_norm(module):
            return layers.shared_batch_norm(module, made, self._batch)
        return made

    def _norm_bias(self, name: str, module: nn.Module) -> Tensor | None:
        bias = module._parameters["bias"]
        return self._leaves.by_name.get(f"{name}.bias", None if bias is None else bias.detach())

    def _trained_keys(self, module_name: str) -> tuple[str, ...]:
        """The keys of a module's own parameters that train."""
        split = (name.rpartition(".") for name in self.parts)
        return tuple(key for owner, _, key in split if owner == module_name)
