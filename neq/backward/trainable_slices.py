"""The leaves that an optimizer sees: whole parameters of the network, and copies of chosen rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neq.networks.parameter_slice import ParameterSlice


class TrainableSlices:
    """What trains, as Parameters.

    Where a whole parameter trains, the leaf is the network's own; where a part does, it is a small Parameter
    of its own, and the network keeps owning the weight: the leaf is copied into it after every step, and is
    taken from it anew when someone else has changed it (a checkpoint was loaded, say).

    Args:
        network: the plain network.
        parts: name of a parameter -> the part of it that trains.
    """

    def __init__(self, network: nn.Module, parts: Mapping[str, ParameterSlice]) -> None:
        self._parts = {name: part for name, part in parts.items() if not part.is_whole}
        self._owned = {name: network.get_parameter(name) for name in parts}
        self.by_name: dict[str, nn.Parameter] = {}
        for name, parameter in self._owned.items():
            if name in self._parts:
                parameter = nn.Parameter(self._parts[name].take(parameter.detach()))
            parameter.requires_grad_(True)
            self.by_name[name] = parameter
        trained = {id(leaf) for leaf in self.by_name.values()}
        for parameter in network.parameters():
            if id(parameter) not in trained:
                parameter.grad = None
        self._note_versions()

    @torch.no_grad()
    def write_back(self) -> None:
        """Copies every part into the network. (Some optimizers step without a tensor's version moving.)"""
        for name, part in self._parts.items():
            part.put(self._owned[name], self.by_name[name])
        self._note_versions()

    @torch.no_grad()
    def reconcile(self) -> None:
        """Before a forward pass: a step that was not written back is, a network that changed is taken over.

        Where nothing changed nothing is written, so that several forward passes before one backward work.
        """
        for name, part in self._parts.items():
            leaf, owned = self.by_name[name], self._owned[name]
            if leaf._version != self._leaf_versions[name]:
                part.put(owned, leaf)
            elif owned._version != self._owned_versions[name]:
                leaf.copy_(part.take(owned))
        self._note_versions()

    def _note_versions(self) -> None:
        self._leaf_versions = {name: self.by_name[name]._version for name in self._parts}
        self._owned_versions = {name: self._owned[name]._version for name in self._parts}
