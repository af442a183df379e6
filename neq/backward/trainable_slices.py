"""The leaves that an optimizer sees: whole parameters of the network, and copies of chosen slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from neq.networks.layer_kinds import LayerKind, layer_kind
from neq.networks.parameter_slice import ParameterSlice, named_tensor


class TrainableSlices:
    """What trains, as Parameters.

    Where a whole floating-point parameter trains, the leaf is the network's own. Elsewhere it is a small
    Parameter of its own, and the network keeps owning the weight: the leaf is copied into it after every
    step, and copied from it again before every forward pass, since something else may have changed it (a
    checkpoint was loaded, say).

    Args:
        network: the plain network.
        parts: name of a parameter, or of the tensor that a layer's weight is stored in -> the slice of it
            that trains.
    """

    def __init__(self, network: nn.Module, parts: Mapping[str, ParameterSlice]) -> None:
        self._copied: dict[str, _Copied] = {}
        self._in_place: dict[str, nn.Module] = {}
        self.by_name: dict[str, nn.Parameter] = {}
        for name, part in parts.items():
            owned = named_tensor(network, name)
            if part.is_whole and isinstance(owned, nn.Parameter) and owned.is_floating_point():
                leaf = owned
                self._in_place[name] = network.get_submodule(name.rpartition(".")[0])
            else:
                self._copied[name] = _Copied.of(network, name, part)
                leaf = nn.Parameter(self._copied[name].take())
            leaf.requires_grad_(True)
            self.by_name[name] = leaf
        self._ids = {id(leaf) for leaf in self.by_name.values()}
        for parameter in network.parameters():
            if id(parameter) not in self._ids:
                parameter.grad = None
        self._record_versions()

    def in_place(self, module: nn.Module) -> tuple[str, ...]:
        """The keys of a module's own parameters that are leaves themselves, under whatever name."""
        return tuple(key for key, parameter in module._parameters.items() if id(parameter) in self._ids)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copies every slice into the network. (Some optimizers step without a tensor's version moving.)"""
        for name, copied in self._copied.items():
            copied.put(self.by_name[name])
        self._record_versions()

    @torch.no_grad()
    def reconcile(self) -> None:
        """Before a forward pass: writes back a step that was not yet, or takes over a network that changed.

        Neither moves a tensor's version where nothing changed, so that several forward passes before one
        backward work.
        """
        for name, module in self._in_place.items():
            key, leaf = name.rpartition(".")[2], self.by_name[name]
            assigned = module._parameters[key]
            if assigned is not leaf and assigned is not None:  # by load_state_dict(assign=True), say
                leaf.copy_(assigned)
                module._parameters[key] = leaf
        for name, copied in self._copied.items():
            leaf = self.by_name[name]
            if isinstance(leaf, FakeTensor):
                continue  # without values nothing changes
            if leaf._version != self._leaf_versions[name]:
                copied.put(leaf)
            elif copied.is_plain:
                leaf.data.copy_(copied.take())  # always: what writes to .data leaves no trace
            elif copied.owned._version != self._owned_versions[name]:
                leaf.copy_(copied.take())
        self._record_versions()

    def _record_versions(self) -> None:
        self._leaf_versions = {name: self.by_name[name]._version for name in self._copied}
        self._owned_versions = {name: copied.owned._version for name, copied in self._copied.items()}


@dataclass(frozen=True)
class _Copied:
    """A tensor of the network, a slice of which trains as a copy.

    Args:
        part: the slice.
        module: that holds the tensor.
        key: its name there.
        kind: of layer, if the tensor is a layer's weight; None: it is a plain parameter.
    """

    part: ParameterSlice
    module: nn.Module
    key: str
    kind: LayerKind | None

    @classmethod
    def of(cls, network: nn.Module, name: str, part: ParameterSlice) -> _Copied:
        """The tensor of that name."""
        owner, _, key = name.rpartition(".")
        module = network.get_submodule(owner)
        kind = layer_kind(module) if key == "weight" else None
        return cls(part, module, key, kind)

    @property
    def owned(self) -> Tensor:
        """The network's tensor."""
        return named_tensor(self.module, self.key)

    @property
    def is_plain(self) -> bool:
        """Whether the network stores the values that the optimizer steps."""
        return self.key in self.module._parameters and self.owned.is_floating_point()

    def take(self) -> Tensor:
        """A copy of the slice's values."""
        if self.kind is None:
            return self.part.take(self.owned.detach())
        return self.kind.take(self.module, self.part)

    def put(self, values: Tensor) -> None:
        """Writes the slice's values into the network."""
        if self.kind is None:
            self.part.put(self.owned, values)
        else:
            self.kind.put(self.module, self.part, values)
