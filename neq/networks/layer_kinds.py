"""Kinds of layer whose neurons can be selected: convolutions, linear layers, and those that are registered.

The neuron table, policies, plans and the cost model ask a layer's kind for everything that depends on its
type. How a plan computes a layer of some kind is registered in `neq.backward.stand_ins`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neq.networks.library_layers import torch_class
from neq.networks.parameter_slice import ParameterSlice

CHOSEN_UNITS = ("neuron", "input_channel")


@dataclass(frozen=True)
class ByteWidths:
    """Bytes of one value in training.

    Args:
        gradient: of a weight's gradient.
        state: of each value that the optimizer keeps for a weight.
        saved_input: of the layer's input as it is kept for backward; None: of the input itself, or of the
            plan's saved precision.
    """

    gradient: int
    state: int
    saved_input: int | None = None


class LayerKind(ABC):
    """One kind of layer: which modules are of it, what a neuron costs, how its weight is read and written.

    A layer's weight is the tensor `weight` of its module, [out, in / groups, ...], and its bias, if it has
    one, the parameter `bias`, [out]. What is implemented here fits a `weight` that is a floating-point
    parameter in the weight's units; a kind that stores it otherwise (as int8 values and a scale, say)
    overrides `weight`, `put`, `widths` and `unit`.

    Attributes:
        name: unique among the registered kinds.
        is_conv: whether SU schemes, which number the convolutions of a network, count layers of this kind.
    """

    name: str
    is_conv: bool = False

    @abstractmethod
    def matches(self, module: nn.Module) -> bool:
        """Whether a module is a layer of this kind."""

    def groups(self, module: nn.Module) -> int:
        """The number of groups of input channels, each of which its own share of the neurons reads."""
        return 1

    def axis(self, module: nn.Module, unit: str) -> int:
        """The axis of the weight that what is chosen numbers: 0 for output channels, 1 for input channels.

        Args:
            module: a layer of this kind.
            unit: one of CHOSEN_UNITS. With groups an output channel reads the inputs of its group alone:
                there it is the unit in both cases.
        """
        return 1 if unit == "input_channel" and self.groups(module) == 1 else 0

    def neurons(self, module: nn.Module, axis: int) -> int:
        """The number of neurons along an axis of the weight."""
        return _stored(module).shape[axis]

    def parameters(self, module: nn.Module, axis: int) -> int:
        """Weights of one neuron, its bias not counted."""
        return _stored(module).numel() // self.neurons(module, axis)

    def macs(self, module: nn.Module, output: Tensor) -> int:
        """Multiply-accumulates of one call of a layer: each weight once for every position of the output.

        Args:
            module: a layer of this kind.
            output: of the call, for one image.
        """
        weight = _stored(module)
        return weight.numel() * (output.numel() // len(weight))

    def widths(self, module: nn.Module) -> ByteWidths:
        """Bytes of the layer's values in training."""
        width = _stored(module).element_size()
        return ByteWidths(gradient=width, state=width)

    def weight(self, module: nn.Module) -> Tensor:
        """The values of the weight in floating point, [out, in / groups, ...], detached."""
        return _stored(module).detach()

    def unit(self, module: nn.Module) -> Tensor | None:
        """The weight that a value of 1 stands for, of the weight's shape, where values are in other units.

        With it W = unit * v for the values v that an optimizer steps, and dL/dW = dL/dv / unit.
        """
        return None

    def take(self, module: nn.Module, part: ParameterSlice) -> Tensor:
        """A copy of the values of a slice of the weight, in floating point: what an optimizer steps."""
        return part.take(self.weight(module))

    def put(self, module: nn.Module, part: ParameterSlice, values: Tensor) -> None:
        """Writes the values of a slice into the stored weight, in place."""
        part.put(_stored(module), values)

    def neurons_last(self, output: Tensor) -> Tensor:
        """A view of an output with the neurons on its last axis."""
        return output


class Conv(LayerKind):
    """Convolutions over images that compute as torch's Conv2d does."""

    name = "conv"
    is_conv = True

    def matches(self, module: nn.Module) -> bool:
        """Whether a module is a Conv2d with torch's own forward and a plain weight."""
        kind = type(module)
        return (
            isinstance(module, nn.Conv2d)
            and kind.forward is nn.Conv2d.forward
            and kind._conv_forward is nn.Conv2d._conv_forward  # type: ignore[attr-defined]
            and _is_plain(module)
        )

    def groups(self, module: nn.Module) -> int:
        """The convolution's groups."""
        assert isinstance(module, nn.Conv2d)
        return module.groups

    def neurons_last(self, output: Tensor) -> Tensor:
        """A map [B, C, H, W] as [B, H, W, C]."""
        return output.movedim(1, -1)


class Linear(LayerKind):
    """Linear layers that compute as torch's Linear does: neurons are the features of the last axis."""

    name = "linear"

    def matches(self, module: nn.Module) -> bool:
        """Whether a module computes as torch's Linear and has a plain weight."""
        return torch_class(module) is nn.Linear and _is_plain(module)


class Whole(LayerKind):
    """Modules of any class that train whole, as a classifier head does; their neurons cannot be selected."""

    name = "whole"

    def matches(self, module: nn.Module) -> bool:
        """Never: a module is of this kind by its place in the network."""
        return False

    def macs(self, module: nn.Module, output: Tensor) -> int:
        """Each value of a matrix once for every position of the output, as in a linear layer."""
        return sum(p.numel() * -(-output.numel() // len(p)) for p in module.parameters() if p.dim() > 1)


CONV, LINEAR, WHOLE = Conv(), Linear(), Whole()
_kinds: dict[str, LayerKind] = {kind.name: kind for kind in (CONV, LINEAR)}


def register_layer_kind(kind: LayerKind) -> None:
    """Adds a kind of layer; of several that match a module the one registered last counts.

    Raises:
        ValueError: another kind of that name is registered.
    """
    if _kinds.setdefault(kind.name, kind) is not kind:
        raise ValueError(f"layer kind {kind.name!r} is registered already; give the new kind another name")


def layer_kinds() -> tuple[LayerKind, ...]:
    """All registered kinds, in the order of registration."""
    return tuple(_kinds.values())


def layer_kind(module: nn.Module) -> LayerKind | None:
    """The kind of a layer; None for a module whose neurons cannot be selected."""
    return next((kind for kind in reversed(_kinds.values()) if kind.matches(module)), None)


def _stored(module: nn.Module) -> Tensor:
    """A layer's weight as it is stored."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _is_plain(module: nn.Module) -> bool:
    """Whether a module's forward is that of its class and its weight a parameter.

    A weight that is parametrized, or made anew by a hook before each call, is none.
    """
    return "forward" not in vars(module) and isinstance(module._parameters.get("weight"), nn.Parameter)
