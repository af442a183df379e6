"""What trains: the parameters, and the slices of them, that a selection and a norm mode leave free."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from neq.networks.layer_kinds import WHOLE
from neq.networks.neurons import NORMS, NeuronTable, Selection
from neq.networks.parameter_slice import ParameterSlice, named_tensor
from neq.utils.errors import UserError, unknown_name

NORM_MODES = ("train", "frontier", "frozen")


def trainable_slices(
    network: nn.Module,
    table: NeuronTable,
    selection: Selection,
    norm_mode: str,
    bias_layers: Collection[str] = (),
    train_head: bool = True,
) -> dict[str, ParameterSlice]:
    """The network's parameters that train, by name, and which slice of each.

    Args:
        network: the plain network.
        table: its neurons.
        selection: layer name -> chosen channels, ascending; a chosen neuron's bias trains with it.
        norm_mode: "train" (all norms train), "frontier" (those called after the earliest chosen layer) or
            "frozen" (none).
        bias_layers: layers whose bias trains whole; in norm mode "frozen", where a norm takes the layer's
            output, that norm's bias too.
        train_head: whether the head trains, as a whole.

    Raises:
        UserError: unknown norm mode, layer or channel, or a head that trains and shares a tensor with another
            module.
    """
    if norm_mode not in NORM_MODES:
        raise unknown_name("norm_mode", norm_mode, NORM_MODES)
    selection = checked(table, selection)
    layers = {layer.name: layer for layer in table.layers}
    for name in bias_layers:
        if name not in layers:
            raise unknown_name("bias layer", name, layers)
    parts: dict[str, ParameterSlice] = {}
    for name, layer in layers.items():
        module = network.get_submodule(name)
        if name in selection:
            channels = selection[name]
            part = (
                ParameterSlice() if len(channels) == layer.neurons else ParameterSlice(channels, layer.axis)
            )
            parts[f"{name}.weight"] = part
            if getattr(module, "bias", None) is not None and layer.axis == 0:
                parts[f"{name}.bias"] = part
        if name in bias_layers:
            if getattr(module, "bias", None) is not None:
                parts[f"{name}.bias"] = ParameterSlice()
            norm = layer.norm if norm_mode == "frozen" else None
            if norm is not None and network.get_submodule(norm).bias is not None:
                parts[f"{norm}.bias"] = ParameterSlice()
    frontier = min((layers[name].order for name in selection), default=float("inf"))
    for name, module in network.named_modules():
        trains = norm_mode == "train" or table.norm_order.get(name, -1) > frontier
        if isinstance(module, NORMS) and trains and norm_mode != "frozen":
            parts |= _own(name, module)
    if train_head:
        parts |= _of_head(network, table)
    return _each_once(network, table, parts)


def _each_once(
    network: nn.Module, table: NeuronTable, parts: dict[str, ParameterSlice]
) -> dict[str, ParameterSlice]:
    """What trains, each tensor under one name: of one that several modules hold that of the first called.

    Such a tensor trains only where it trains whole in all of them, as it would move in all of them.

    Raises:
        UserError: the head trains and shares a tensor with another module.
    """
    names: dict[int, list[str]] = {}
    for owner, module in network.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                names.setdefault(id(tensor), []).append(f"{owner}.{key}" if owner else key)
    order = {layer.name: layer.order for layer in table.layers} | dict(table.norm_order)
    for shared in (each for each in names.values() if len(each) > 1):
        of_head = [name for name in shared if name.startswith(f"{table.head}.")]
        if len(of_head) == len(shared):
            continue
        if not parts.keys().isdisjoint(of_head):
            raise UserError(
                f"{' and '.join(shared)} are one tensor, which would train with the head; give the head a "
                "tensor of its own"
            )
        shared.sort(key=lambda name: order.get(name.rpartition(".")[0], math.inf))
        trains = all(name in parts and parts[name].is_whole for name in shared)
        for name in shared[int(trains) :]:
            parts.pop(name, None)
    return parts


def trained_values(
    network: nn.Module, table: NeuronTable, parts: Mapping[str, ParameterSlice]
) -> dict[str, int]:
    """How many values train: chosen weights, biases of selectable layers, norms, head."""
    counts = {"weights": 0, "biases": 0, "norms": 0, "head": 0}
    for name, part in parts.items():
        module_name, _, key = name.rpartition(".")
        if name.startswith(f"{table.head}."):
            kind = "head"
        elif isinstance(network.get_submodule(module_name), NORMS):
            kind = "norms"
        else:
            kind = "biases" if key == "bias" else "weights"
        counts[kind] += values_of(network, name, part)
    return counts


def values_of(network: nn.Module, name: str, part: ParameterSlice) -> int:
    """The number of values in a slice of a parameter, or of the tensor that a layer's weight is stored in."""
    tensor = named_tensor(network, name)
    if part.index is None:
        return tensor.numel()
    return tensor.numel() // tensor.shape[part.axis] * len(part.index)


def checked(table: NeuronTable, selection: Selection) -> dict[str, Tensor]:
    """A selection with empty layers left out.

    Args:
        table: the network's neurons.
        selection: layer name -> channels, as an int64 tensor or a list.

    Raises:
        UserError: an unknown layer, or channels that it does not have, that repeat or are out of order.
    """
    neurons = {layer.name: layer.neurons for layer in table.layers}
    result = {}
    for name, given in selection.items():
        if name not in neurons:
            raise unknown_name("selectable layer", name, neurons)
        channels = torch.as_tensor(given, dtype=torch.int64, device="cpu")
        last = neurons[name] - 1
        if len(channels) and not (int(channels.min()) >= 0 and int(channels.max()) <= last):
            raise UserError(f"layer {name!r} has the channels 0 .. {last}, not {channels.tolist()}")
        if not torch.equal(channels, channels.unique()):
            raise UserError(f"the channels of layer {name!r} must be ascending, each once")
        if len(channels):
            result[name] = channels
    return result


def _of_head(network: nn.Module, table: NeuronTable) -> dict[str, ParameterSlice]:
    """All parameters of the head, those of modules within it included."""
    names = dict.fromkeys(key for key, _ in network.get_submodule(table.head).named_parameters())
    if table.head_kind is not WHOLE:
        names["weight"] = None  # by name too: a layer's kind may store it in a buffer
    return {f"{table.head}.{key}": ParameterSlice() for key in names}


def _own(name: str, module: nn.Module) -> dict[str, ParameterSlice]:
    """All of a module's own parameters."""
    prefix = f"{name}." if name else ""
    return {
        f"{prefix}{key}": ParameterSlice()
        for key, parameter in module._parameters.items()
        if parameter is not None
    }
