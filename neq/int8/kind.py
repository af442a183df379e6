"""Int8 convolutions as a kind of layer: their neurons are selected, counted and trained as any others."""

from __future__ import annotations

from torch import Tensor, nn

from neq.backward import StandIn, TrainableLayer, register_stand_in
from neq.backward.conv_functions import ChosenChannels
from neq.backward.input_channels import InputChannels
from neq.backward.module_views import shadow
from neq.backward.output_channels import OutputChannels
from neq.int8.conv import Int8Conv, weight_codes
from neq.networks import ByteWidths, LayerKind, ParameterSlice, register_layer_kind


class Int8ConvKind(LayerKind):
    """Convolutions of codes. What trains are their weights in units of codes; SU counts them as convs."""

    name = "int8 conv"
    is_conv = True

    def matches(self, module: nn.Module) -> bool:
        """Whether a module is an Int8Conv with its own forward."""
        return type(module) is Int8Conv and "forward" not in vars(module)

    def groups(self, module: nn.Module) -> int:
        """The convolution's groups."""
        return _conv(module).geometry.groups

    def widths(self, module: nn.Module) -> ByteWidths:
        """Float32 gradients and state, an int8 input."""
        return ByteWidths(gradient=4, state=4, saved_input=1)

    def weight(self, module: nn.Module) -> Tensor:
        """The real weight q_w s_w."""
        return weight_codes(_conv(module).weight) * self.unit(module)

    def unit(self, module: nn.Module) -> Tensor:
        """The scale s_w of each output channel."""
        conv = _conv(module)
        return conv.scales.view(-1, 1, 1, 1).expand_as(conv.weight)

    def take(self, module: nn.Module, part: ParameterSlice) -> Tensor:
        """A copy of a slice of the weight, in units of codes."""
        return part.take(_conv(module).weight.detach())

    def neurons_last(self, output: Tensor) -> Tensor:
        """A map [B, C, H, W] as [B, H, W, C]."""
        return output.movedim(1, -1)


INT8_CONV = Int8ConvKind()


def int8_stand_in(module: nn.Module, trains: TrainableLayer) -> nn.Module:
    """The stand-in of an int8 convolution."""
    conv = _conv(module)
    chosen, made = _chosen(conv, trains), shadow(conv)

    def forward(x: Tensor) -> Tensor:
        bias = trains.bias()
        assert bias is not None
        return conv.convolve(x, trains.weight, bias, chosen)

    made.forward = forward
    return made


def _chosen(conv: Int8Conv, trains: TrainableLayer) -> ChosenChannels | None:
    """The chosen channels of a weight; None for all or nothing of it."""
    index = trains.part.index
    if index is None or trains.weight is None:
        return None
    device, (outputs, width, *_), groups = conv.weight.device, conv.weight.shape, conv.geometry.groups
    if trains.part.axis == 1:
        return InputChannels(index.to(device))
    return OutputChannels.of(index, outputs, width * groups, groups, device=device)


def _conv(module: nn.Module) -> Int8Conv:
    assert isinstance(module, Int8Conv)
    return module


register_layer_kind(INT8_CONV)
register_stand_in(INT8_CONV, StandIn(int8_stand_in))
