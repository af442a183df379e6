"""Binary weights: of each convolution one bit a weight and one scale an output channel.

With the n weights W of an output channel,

    B = alpha sign(W),    alpha = mean |W|,    sign(0) = 1,

which of all such B is the one of the least squared error, |W - B|^2 = |W|^2 - n alpha^2. Training keeps W;
its gradient is straight-through where |w| <= 1, and 1/n of it by alpha's own way:

    dL/dw = dL/dB (1/n + alpha [|w| <= 1]).

The first convolution, depthwise and grouped ones, Linears and the head stay as they are. It is simulated: B
is in floating point and no operation is faster; a packed file alone is smaller (`neq.compression.packing`).
Source: Rastegari et al., "XNOR-Net", ECCV 2016 (Binary-Weight-Networks), equations 4 to 6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward import StandIn, TrainableLayer, register_stand_in
from neq.backward.autocast import autocast
from neq.backward.conv_functions import ChosenChannels
from neq.backward.geometry import Geometry
from neq.backward.input_channels import InputChannels
from neq.backward.module_views import shadow
from neq.backward.output_channels import OutputChannels, layout_of
from neq.compression.changed import Compressed
from neq.compression.sparsity import sparse_layers
from neq.networks import LayerKind, ParameterSlice, neuron_table, register_layer_kind
from neq.networks.recipe import register_transform
from neq.utils.errors import UserError


class BinaryConv2d(nn.Conv2d):
    """A convolution by B, the binary weights of its parameter `weight`."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, [B, I, H, W]."""
        out: Tensor = _Convolve.apply(
            x, self.weight, self.bias, self.weight.detach(), self, ParameterSlice(), None
        )
        return out


def binary_weight(weight: Tensor) -> Tensor:
    """B of a weight [O, ...]."""
    scale = weight.abs().flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1))
    return torch.where(weight >= 0, scale, -scale)


def _passed(weight: Tensor) -> Tensor:
    """dL/dw as a share of dL/dB, of the weight's shape."""
    scale = weight.abs().flatten(1).mean(1).view(-1, *[1] * (weight.dim() - 1))
    return weight[0].numel() ** -1 + scale * (weight.abs() <= 1)


class _Convolve(Function):
    """x * B + bias; kept are the input channels that the gradient of the chosen weights reads.

    B is made once more in backward, so that nothing of the weight's size is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        leaf: Tensor | None,
        bias: Tensor | None,
        weight: Tensor,
        layer: nn.Conv2d,
        part: ParameterSlice,
        chosen: ChosenChannels | None,
        saved_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Args: x [B, I, H, W]; leaf, given only to receive its gradient; bias [O]; weight, of which `leaf`
        is the slice `part`; layer; chosen, the same slice, None for all; saved_dtype, that x is kept in."""
        x = autocast(x)
        geometry = _geometry(layer)
        kept = None
        if ctx.needs_input_grad[1]:
            kept = x if chosen is None else chosen.read(x)
            kept = kept if saved_dtype is None else kept.to(saved_dtype)
        ctx.save_for_backward(kept, weight)
        ctx.geometry, ctx.part, ctx.chosen, ctx.layout = geometry, part, chosen, layout_of(x)
        ctx.shape = x.shape
        return geometry.forward(
            x, binary_weight(weight).to(x.dtype), None if bias is None else bias.to(x.dtype)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        geometry, chosen, grad_x, grad_leaf, grad_bias = ctx.geometry, ctx.chosen, None, None, None
        if ctx.needs_input_grad[0]:
            like = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.layout)
            grad_x = geometry.input_gradient(grad, like, binary_weight(weight).to(grad.dtype))
        if ctx.needs_input_grad[1]:
            passed = ctx.part.take(_passed(weight))
            x = kept.to(grad.dtype)
            if chosen is None:
                like = torch.empty(weight.shape, dtype=grad.dtype, device=grad.device)
                of_binary = geometry.weight_gradient(grad, x, like, geometry.groups)
            else:
                of_binary = chosen.gradient(grad, x, geometry, passed.shape)
            grad_leaf = of_binary.to(weight.dtype) * passed
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_leaf, grad_bias, None, None, None, None, None


class BinaryConvKind(LayerKind):
    """Convolutions by binary weights; what is chosen and stepped are the weights that those are of."""

    name = "binary conv"
    is_conv = True

    def matches(self, module: nn.Module) -> bool:
        """Whether a module is a BinaryConv2d with its own forward."""
        return type(module) is BinaryConv2d and "forward" not in vars(module)

    def neurons_last(self, output: Tensor) -> Tensor:
        """A map [B, C, H, W] as [B, H, W, C]."""
        return output.movedim(1, -1)


BINARY_CONV = BinaryConvKind()


def binary_stand_in(module: nn.Module, trains: TrainableLayer) -> nn.Module:
    """The stand-in of a binary convolution: the weight's gradient is of the chosen slice alone."""
    assert isinstance(module, BinaryConv2d)
    chosen, made = _chosen(module, trains), shadow(module)

    def forward(x: Tensor) -> Tensor:
        weight = module.weight.detach()
        out: Tensor = _Convolve.apply(
            x, trains.weight, trains.bias(), weight, module, trains.part, chosen, trains.saved_dtype
        )
        return out

    made.forward = forward
    return made


@register_transform("binary")
def binarized(network: nn.Module, layers: list[str]) -> nn.Module:
    """Makes convolutions compute by their binary weights, in place.

    Args:
        network: with these layers.
        layers: names of convolutions that `is_binarizable`.

    Raises:
        ValueError: another layer.
    """
    for name in layers:
        layer = network.get_submodule(name)
        if not is_binarizable(layer):
            raise ValueError(f"{name}, a {type(layer).__name__}, cannot have binary weights")
        layer.__class__ = BinaryConv2d
    return network


def binarize(start: Compressed, images: Tensor) -> Compressed:
    """The network with binary weights in all of its convolutions but the first, depthwise and grouped ones.

    Args:
        start: stays as it is.
        images: float32 [1, 3, S, S], of the size that the network is used with.

    Raises:
        UserError: a sparse network, whose zeros binary weights do not have, or no such convolution.
    """
    if sparse_layers(start.network):
        raise UserError(
            "binary weights are not zero, and this network is sparse; give --sparsify or --binarize"
        )
    _, channels, height, width = images.shape
    table = neuron_table(start.network, (channels, height, width), head=start.recipe.head)
    first = min(
        (layer for layer in table.layers if layer.kind.is_conv), key=lambda layer: layer.order, default=None
    )
    layers = [
        layer.name
        for layer in table.layers
        if layer is not first and is_binarizable(start.network.get_submodule(layer.name))
    ]
    if not layers:
        raise UserError(
            f"{start.recipe.net_name} has no convolution to binarize beside its first and its head"
        )
    return start.by("binary", start.network.state_dict(), layers=layers)


def is_binarizable(layer: nn.Module) -> bool:
    """Whether a layer is a plain dense convolution, padded by zeros."""
    is_dense = type(layer) is nn.Conv2d and layer.groups == 1
    return is_dense and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _chosen(conv: nn.Conv2d, trains: TrainableLayer) -> ChosenChannels | None:
    """The chosen channels of a weight; None for all or nothing of it."""
    index = trains.part.index
    if index is None or trains.weight is None:
        return None
    if trains.part.axis == 1:
        return InputChannels(index.to(conv.weight.device))
    return OutputChannels.of(
        index, conv.out_channels, conv.in_channels, conv.groups, device=conv.weight.device
    )


def _geometry(conv: nn.Conv2d) -> Geometry:
    sides = (conv.stride, conv.padding, conv.dilation)
    return Geometry(*sides, conv.groups)  # type: ignore[arg-type]


register_layer_kind(BINARY_CONV)
register_stand_in(BINARY_CONV, StandIn(binary_stand_in))
