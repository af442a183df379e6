"""The neuron table: every selectable neuron of a network, and what it costs.

A neuron is one output channel of a layer of a registered kind (of a Conv2d, one output feature of a Linear),
the classifier head excepted; or, where input channels are chosen instead, one of those. Neurons are numbered
0 .. N-1 by layer in module order, then by channel.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from neq.networks.heads import classifier_modules, has_matrix
from neq.networks.layer_kinds import CHOSEN_UNITS, WHOLE, LayerKind, layer_kind, layer_kinds
from neq.networks.module_state import unchanged
from neq.utils.errors import UserError, unknown_name
from neq.utils.eval_mode import eval_mode

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)

# What is chosen: layer name -> its chosen channels, ascending.
Selection = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer whose neurons can be selected.

    Args:
        name: of the module.
        kind: of layer, which knows how to count, read and write its neurons.
        neurons: output channels or features, or input ones.
        parameters: weights of one neuron, its bias not counted.
        macs: multiply-accumulates of one neuron's forward pass for one image; its weight gradient costs as
            much.
        order: position of the layer's first call among all calls of a forward pass.
        last: position of its last call.
        norm: name of the norm layer that takes this layer's output; None: there is none.
        axis: axis of the weight that the neurons index: 0 for output channels, 1 for input channels.
    """

    name: str
    kind: LayerKind
    neurons: int
    parameters: int
    macs: int
    order: int
    last: int
    norm: str | None
    axis: int = 0


@dataclass(frozen=True)
class NeuronTable:
    """Every selectable neuron of a network.

    Args:
        layers: in module order, without the head.
        head: name of the classifier head.
        head_kind: its kind of layer.
        head_macs: its forward multiply-accumulates for one image.
        norm_order: norm layer -> position of its first call in a forward pass.
        unselectable: modules with parameters of their own that are neither selectable, norm nor head; they
            stay frozen.
    """

    layers: tuple[Layer, ...]
    head: str
    head_kind: LayerKind
    head_macs: int
    norm_order: Mapping[str, int]
    unselectable: tuple[str, ...] = ()
    _slices: dict[str, slice] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        slices, start = {}, 0
        for layer in self.layers:
            slices[layer.name] = slice(start, start + layer.neurons)
            start += layer.neurons
        object.__setattr__(self, "_slices", slices)

    def __len__(self) -> int:
        return sum(layer.neurons for layer in self.layers)

    def slice_of(self, name: str) -> slice:
        """The positions of a layer's neurons."""
        return self._slices[name]

    @cached_property
    def parameters(self) -> Tensor:
        """Weights of each neuron, int64 [N]."""
        return self._per_neuron([layer.parameters for layer in self.layers])

    @cached_property
    def macs(self) -> Tensor:
        """Forward multiply-accumulates of each neuron for one image, int64 [N]."""
        return self._per_neuron([layer.macs for layer in self.layers])

    @property
    def total_parameters(self) -> int:
        """Weights of all selectable neurons: what a ratio of 1 means."""
        return sum(layer.neurons * layer.parameters for layer in self.layers)

    @property
    def total_macs(self) -> int:
        """Forward multiply-accumulates of all selectable neurons for one image."""
        return sum(layer.neurons * layer.macs for layer in self.layers)

    def selection(self, chosen: Tensor) -> dict[str, Tensor]:
        """The chosen channels by layer, layers without any left out.

        Args:
            chosen: bool [N].
        """
        assert chosen.dtype == torch.bool
        assert chosen.shape == (len(self),)
        found = {layer.name: chosen[self.slice_of(layer.name)].nonzero().flatten() for layer in self.layers}
        return {name: channels for name, channels in found.items() if len(channels)}

    def mask(self, selection: Selection) -> Tensor:
        """The neurons of a selection, bool [N].

        Args:
            selection: layer name -> channels.
        """
        chosen = torch.zeros(len(self), dtype=torch.bool)
        for name, channels in selection.items():
            chosen[self.slice_of(name).start + channels.cpu()] = True
        return chosen

    def _per_neuron(self, values: list[int]) -> Tensor:
        counts = torch.tensor([layer.neurons for layer in self.layers])
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(counts)


def neuron_table(
    network: nn.Module, input_shape: tuple[int, int, int], head: str | None = None, unit: str = "neuron"
) -> NeuronTable:
    """The neuron table of any network, from one forward pass of one image of zeros in eval mode.

    Args:
        network: any module that takes a batch of images; it is left as it was.
        input_shape: of one image: channels, height, width.
        head: name of the classifier head; by default the module with a matrix of parameters that is called
            last, of whatever class; where the network names its classifier (`get_classifier`), there.
        unit: "neuron" for output channels, or "input_channel", where only the chosen channels of a layer's
            input need to be kept (Lin et al., NeurIPS 2022). In grouped convolutions an output channel reads
            the inputs of its group alone: there it is the unit in both cases.

    Raises:
        UserError: no selectable layer besides the head, a head that is not called or has no matrix, a
            part of the network's classifier that would stay frozen, or an unknown unit.
    """
    if unit not in CHOSEN_UNITS:
        raise unknown_name("unit", unit, CHOSEN_UNITS)
    calls = _trace(network, input_shape)
    named = dict(network.named_modules())
    kinds = {name: kind for name in calls if (kind := layer_kind(named[name])) is not None}
    if not kinds:
        raise UserError(f"the network has no layer to select: {_found(network, ())}")
    heads = {name: kinds.get(name, WHOLE) for name in calls if name in kinds or has_matrix(named[name])}
    classifier = classifier_modules(network)
    if head is None:
        own = [name for name in heads if named[name] in classifier]
        head = max(own or heads, key=lambda name: calls[name].last)
    if head not in heads:
        raise unknown_name("head", head, heads)
    shared = _shared_weights(network)
    layers = []
    unselectable = []
    for name, module in named.items():
        if name == head or name.startswith(f"{head}.") or isinstance(module, NORMS):
            continue  # what is inside the head trains with it
        if name in kinds and id(module.weight) not in shared:
            layers.append(_layer(name, module, kinds[name], calls[name], unit))
        elif next(module.parameters(recurse=False), None) is not None:
            unselectable.append(name)
    if not layers:
        raise UserError(
            f"the network has no layer to select besides its head {head!r}: {_found(network, {head})}"
        )
    for name in unselectable:
        if named[name] in classifier and has_matrix(named[name]):
            raise UserError(
                f"with the head {head!r} the network's classifier {name!r} would never train: a "
                f"{type(named[name]).__name__} cannot be selected; pass head={name!r}, or register a kind of "
                "layer for it (neq.networks.register_layer_kind)"
            )
    norm_order = {name: call.order for name, call in calls.items() if isinstance(named[name], NORMS)}
    return NeuronTable(tuple(layers), head, heads[head], calls[head].macs, norm_order, tuple(unselectable))


def _found(network: nn.Module, left_out: Collection[str]) -> str:
    """The modules with parameters of their own, by type, and which types can be selected."""
    owners = [
        module
        for name, module in network.named_modules()
        if name not in left_out and next(module.parameters(recurse=False), None) is not None
    ]
    types = Counter(type(module).__name__ for module in owners)
    found = ", ".join(f"{count} {name}" for name, count in types.most_common(5)) or "none"
    rest = ", ..." if len(types) > 5 else ""
    kinds = ", ".join(kind.name for kind in layer_kinds())
    return (
        f"modules with parameters are {found}{rest}; allowed kinds of layer are {kinds}, as torch computes "
        "them, called by the network's forward and with a weight that no other module shares"
    )


def _shared_weights(network: nn.Module) -> set[int]:
    """The ids of tensors that several modules hold: their channels cannot train apart."""
    holders = Counter(
        id(tensor)
        for module in network.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )
    return {tensor for tensor, count in holders.items() if count > 1}


@dataclass
class _Call:
    """What a forward pass shows of one module: when it was called, its MACs, the norm that follows it."""

    order: int
    last: int = 0
    macs: int = 0
    norm: str | None = None


def _layer(name: str, module: nn.Module, kind: LayerKind, call: _Call, unit: str) -> Layer:
    axis = kind.axis(module, unit)
    neurons = kind.neurons(module, axis)
    parameters = kind.parameters(module, axis)
    return Layer(
        name, kind, neurons, parameters, call.macs // neurons, call.order, call.last, call.norm, axis
    )


def _trace(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, _Call]:
    """Runs one image through the network and records the calls of layers, norms and whatever has a matrix."""
    calls: dict[str, _Call] = {}
    handles = []
    count = itertools.count()

    def watch(name: str, module: nn.Module, kind: LayerKind | None) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            now = next(count)
            call = calls.setdefault(name, _Call(now))
            call.last = now
            if kind is None:
                # The mark is the layer's as long as nothing has changed the tensor in place since.
                x = first_input(args, kwargs)
                source, version = getattr(x, "_neq_made_by", (None, None))
                if source is not None and version == x._version:
                    calls[source].norm = name
            else:
                call.macs += kind.macs(module, output)
                output._neq_made_by = (name, output._version)  # type: ignore[attr-defined]

        handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def watch_other(name: str, module: nn.Module) -> None:
        def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            now = next(count)
            calls.setdefault(name, _Call(now)).last = now

        def end(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            calls[name].macs += WHOLE.macs(module, output) if isinstance(output, Tensor) else 0

        handles.extend([module.register_forward_pre_hook(begin), module.register_forward_hook(end)])

    for name, module in network.named_modules():
        kind = layer_kind(module)
        if kind is not None or isinstance(module, NORMS):
            watch(name, module, kind)
        elif has_matrix(module) and ".parametrizations." not in name:
            watch_other(name, module)  # its place counts from the beginning: others may be called inside
    example = next(network.parameters())
    try:
        with torch.no_grad(), eval_mode(network), unchanged(network):
            network(torch.zeros(1, *input_shape, device=example.device, dtype=example.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first input of a module's call, by position or by keyword."""
    return next(iter((*args, *kwargs.values())))
