"""Convolutions of codes, and a backward pass that keeps codes and bits.

Shapes by letters: B images, I input and O output channels, H x W and P x Q positions, K x L of the kernel; R
are the input channels that the gradient of the chosen weights reads. Rounding passes gradients straight
through (Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.bitmask import times_mask
from neq.backward.conv_functions import ChosenChannels
from neq.backward.geometry import Geometry
from neq.backward.output_channels import layout_of
from neq.int8.arithmetic import rescale_
from neq.int8.description import HIGHEST_BIAS, LARGEST_WEIGHT, LOWEST_BIAS, Conv, Quantization
from neq.int8.modules import QuantizedModule


class Int8Conv(QuantizedModule):
    """A convolution of centred codes x, padded by (K - 1) // 2:

        y = round((x * q_w + q_b) e)    clamped to the codes,    e_O = s_x s_w,O / s_y

    Weight and bias are floating-point parameters in the units of their codes, of which q_w and q_b are the
    rounded values: steps smaller than a code add up.

    Sums are exact in float32 as long as they stay below 2^24, and rescaled in float64. (The published
    networks' codes come out as in integer arithmetic; see docs/int8.md.) With `exact` they are float64's.

    Args:
        conv: what it computes.
        input: quantization of its input.
    """

    scales: Tensor

    def __init__(self, conv: Conv, input: Quantization) -> None:
        super().__init__((input,), conv.output)
        self.weight = nn.Parameter(conv.weight.float())
        self.bias = nn.Parameter(conv.bias.float())
        self.register_buffer("scales", conv.scales.clone())
        self.geometry = _geometry(conv)
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, centred codes [B, I, H, W]."""
        return self.convolve(x, self.weight, self.bias, None)

    def convolve(self, x: Tensor, leaf: Tensor | None, bias: Tensor, chosen: ChosenChannels | None) -> Tensor:
        """The convolution with gradients for a slice of the weight.

        Args:
            x: centred codes [B, I, H, W].
            leaf: the slice of the weight that receives its gradient; None: none does.
            bias: [O], in units of its codes.
            chosen: which slice; None: all of the weight.
        """
        out: Tensor = _Convolve.apply(x, leaf, bias, self.weight.detach(), self, chosen)
        return out

    def effective_scale(self) -> Tensor:
        """e, float64 [O]."""
        return self.scales.double() * self.inputs[0].scale / self.output.scale

    @torch.no_grad()
    def codes(self) -> tuple[Tensor, Tensor]:
        """The codes of weight and bias as a device stores them, int8 [O, I / groups, K, K] and int32 [O]."""
        bias = self.bias.double().round().clamp(LOWEST_BIAS, HIGHEST_BIAS)
        return weight_codes(self.weight).to(torch.int8), bias.to(torch.int32)


def weight_codes(weight: Tensor) -> Tensor:
    """The codes of a weight, in its own type."""
    return weight.detach().round().clamp_(-LARGEST_WEIGHT, LARGEST_WEIGHT)


class _Convolve(Function):
    """`Int8Conv` forward; backward, with the gradient g of y where it was in range and h = g e,

        dL/dq_b = sum over B, P, Q of h,    dL/dq_w = sum over B, P, Q of h_BOPQ x_BRHW    (shifted by K, L),
        dL/dx = h *^T q_w.

    Kept are x_BRHW as int8 and one bit for each y; the weight is rounded once more in backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        leaf: Tensor | None,
        bias: Tensor,
        weight: Tensor,
        layer: Int8Conv,
        chosen: ChosenChannels | None,
    ) -> Tensor:
        """Args: x [B, I, H, W]; leaf, given only to receive its gradient; bias [O]; weight, of which `leaf`
        is a slice [O, I / groups, K, L]; layer; chosen, which slice."""
        kind = torch.float64 if layer.exact else x.dtype
        scale = layer.effective_scale().view(-1, 1, 1)
        with torch.autocast(x.device.type, enabled=False):
            sums = layer.geometry.forward(x.to(kind), weight_codes(weight).to(kind), bias.round().to(kind))
        out = sums if sums.dtype == x.dtype else torch.empty_like(sums, dtype=x.dtype)
        needs_x, needs_leaf, needs_bias = ctx.needs_input_grad[:3]
        bits = rescale_(
            out,
            lambda piece: sums[piece].double().mul_(scale),
            layer.output,
            needs_x or needs_leaf or needs_bias,
        )
        kept = None
        if needs_leaf:
            kept = ((x if chosen is None else chosen.read(x)) + layer.inputs[0].zero).to(torch.int8)
        ctx.save_for_backward(bits, kept, weight if needs_x else None)
        ctx.layer, ctx.chosen = layer, chosen
        ctx.x, ctx.layout = (x.shape, layout_of(x)), layout_of(out)
        ctx.leaf = None if leaf is None else (leaf.shape, leaf.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bits, kept, weight = ctx.saved_tensors
        layer, chosen, grad_x, grad_leaf, grad_bias = ctx.layer, ctx.chosen, None, None, None
        scale = layer.effective_scale().to(grad.dtype)
        grad = times_mask(grad, bits, ctx.layout).mul_(scale.view(-1, 1, 1))
        if ctx.needs_input_grad[0]:
            shape, layout = ctx.x
            like = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
            grad_x = layer.geometry.input_gradient(grad, like, weight_codes(weight))
        if ctx.needs_input_grad[1]:
            shape, dtype = ctx.leaf
            x = kept.to(grad.dtype).sub_(layer.inputs[0].zero)
            if chosen is None:
                like = torch.empty(shape, dtype=grad.dtype, device=grad.device)
                grad_leaf = layer.geometry.weight_gradient(grad, x, like, layer.geometry.groups)
            else:
                grad_leaf = chosen.gradient(grad, x, layer.geometry, shape)
            grad_leaf = grad_leaf.to(dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_leaf, grad_bias, None, None, None


def _geometry(conv: Conv) -> Geometry:
    padding = (conv.weight.shape[2] - 1) // 2
    return Geometry((conv.stride, conv.stride), (padding, padding), (1, 1), conv.groups)
