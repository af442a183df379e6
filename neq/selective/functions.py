"""Autograd functions whose backward computes and stores no more than a selection needs.

Each is a convolution together with what follows it: nothing or a fixed scale and shift (`ConvAct`), or a
norm on batch statistics (`ConvNormAct`), and then nothing or an activation. `SelectiveLinear` is alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.selective.activation import Activation
from neq.selective.rows import ConvRows, empty_like_layout, layout_of


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input: pairs by height and width, and its groups."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, groups: int, needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of input and weight, each if needed.

        (torch.nn.grad's own wrapper of the first is 9 times slower for a 1x1 convolution.)
        """
        sides = (list(self.stride), list(self.padding), list(self.dilation))
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, *sides, False, [0, 0], groups, [*needs, False]
        )
        return grad_x, grad_weight


class Source:
    """How an activation can be made again from the output of the convolution before it.

    Args:
        y: that output [B, C, H, W], kept for its own backward anyway.
        scale, shift: of the norm between, [C].
        activation: what followed.
    """

    def __init__(self, y: Tensor, scale: Tensor, shift: Tensor, activation: Activation) -> None:
        self.y, self.scale, self.shift, self.activation = y, scale, shift, activation


class _Conv:
    """What both convolution functions keep for the gradients of input and rows."""

    def __init__(self, x: Tensor, rows: Tensor | None, chosen: ConvRows | None, geometry: Geometry) -> None:
        self.x = (x.shape, layout_of(x), x.dtype)
        self.rows = None if rows is None else (rows.shape, rows.dtype)
        self.chosen = chosen
        self.geometry = geometry

    def read(self, x: Tensor) -> Tensor:
        """The part of the input that the rows' gradient needs."""
        return x if self.chosen is None else self.chosen.read(x)

    def made_again(self, y: Tensor, scale: Tensor, shift: Tensor, activation: Activation) -> Tensor:
        """What `read` would have given, from what stood before the norm and activation of the input."""
        if self.chosen is not None and self.chosen.inputs is not None:
            scale, shift = (vector.index_select(0, self.chosen.inputs) for vector in (scale, shift))
        return activation.apply_(_affine(self.read(y), scale, shift))

    def gradients(
        self, grad: Tensor, weight: Tensor | None, kept: Tensor | None, needs_x: bool, needs_rows: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of input and rows.

        Args:
            grad: of the convolution's output.
            weight: whole; needed for the input's gradient, and where all rows are chosen.
            kept: what `read` gave; needed for the rows' gradient.
            needs_x, needs_rows: which to compute.
        """
        grad_x = grad_rows = None
        groups = self.geometry.groups
        if needs_rows and self.chosen is None:
            assert weight is not None
            assert kept is not None
            assert self.rows is not None
            grad_x, grad_rows = self.geometry.backward(grad, kept, weight, groups, (needs_x, True))
            assert grad_rows is not None
            return grad_x, grad_rows.to(self.rows[1])
        if needs_x:
            assert weight is not None
            shape, layout, dtype = self.x
            # Its values are not read, only its shape and layout.
            x = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout)
            grad_x, _ = self.geometry.backward(grad, x, weight, groups, (True, False))
        if needs_rows:
            assert self.chosen is not None
            assert kept is not None
            assert self.rows is not None
            shape, dtype = self.rows
            like = empty_like_layout(kept, (self.chosen.padded, *shape[1:]))
            gathered = self.chosen.gather(grad)
            _, grad_rows = self.geometry.backward(
                gathered, kept, like, self.chosen.used_groups, (False, True)
            )
            assert grad_rows is not None
            if self.chosen.slots is not None:
                grad_rows = grad_rows.index_select(0, self.chosen.slots)
            grad_rows = grad_rows.to(dtype)
        return grad_x, grad_rows


class ConvAct(Function):
    """act(scale * conv(x, weight) + shift), with gradients for chosen rows, shift, and, if needed, x.

    Kept for backward: the input, or of a grouped convolution the channels that the chosen rows read, only if
    a row is chosen; of the activation its result where that is kept by what follows anyway, else a mask.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        chosen: ConvRows | None,
        geometry: Geometry,
        activation: Activation | None,
        output_is_kept: bool,
    ) -> Tensor:
        """Args: x [B, in, H, W]; rows [n, in / groups, kh, kw], the values of `weight` at `chosen`, or all
        of it where chosen is none, given only to receive their gradient; weight [out, in / groups, kh, kw];
        scale and shift [out]; output_is_kept: the next layer keeps the result for its own backward."""
        folded = _folded(weight, scale, x.dtype)
        out = geometry.forward(x, folded, None if shift is None else shift.to(x.dtype))
        if activation is not None:
            activation.apply_(out)
        needs_x, needs_rows, needs_shift = (ctx.needs_input_grad[i] for i in (0, 1, 4))
        if not (needs_x or needs_rows or needs_shift):
            return out
        ctx.conv = conv = _Conv(x, rows, chosen, geometry)
        ctx.activation = activation
        ctx.mask_layout = None if output_is_kept else layout_of(out)
        of_activation = None
        if activation is not None:
            of_activation = out if output_is_kept else activation.mask(out)
        needs_weight = needs_x or (needs_rows and chosen is None)
        ctx.save_for_backward(
            conv.read(x) if needs_rows else None, weight if needs_weight else None, scale, of_activation
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, scale, of_activation = ctx.saved_tensors
        if ctx.activation is not None and ctx.mask_layout is None:
            grad = ctx.activation.backward(grad, of_activation)
        elif ctx.activation is not None:
            grad = ctx.activation.masked(grad, of_activation, ctx.mask_layout)
        needs_x, needs_rows, needs_shift = (ctx.needs_input_grad[i] for i in (0, 1, 4))
        folded = None if weight is None else _folded(weight, scale, grad.dtype)
        grad_x, grad_rows = ctx.conv.gradients(grad, folded, kept, needs_x, needs_rows)
        if grad_rows is not None and scale is not None:
            chosen = ctx.conv.chosen
            of_rows = scale if chosen is None else scale.index_select(0, chosen.channels)
            grad_rows = grad_rows * of_rows.view(-1, 1, 1, 1)
        grad_shift = grad.sum((0, 2, 3)) if needs_shift else None
        return grad_x, grad_rows, None, None, grad_shift, None, None, None, None


class ConvNormAct(Function):
    """act(batch_norm(conv(x, weight))) on batch statistics, with gradients for what trains and, if needed, x.

    Kept for backward: the convolution's output alone. The activation is made again from it, here and, where
    the next convolution needs it as its input, there (`source`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        running: tuple[Tensor | None, Tensor | None, float, float],
        chosen: ConvRows | None,
        geometry: Geometry,
        activation: Activation | None,
        source: Source | None,
        made: list[Source],
    ) -> Tensor:
        """Args as for `ConvAct`, and: bias [out] of the convolution; gamma and beta [out] of the norm;
        running: its mean, variance (updated in place), momentum and eps; source: of x, if it has one; made:
        receives the source of the result."""
        mean_now, var_now, momentum, eps = running
        y = geometry.forward(x, weight, bias)
        if y.numel() == y.shape[1]:
            raise ValueError(f"batch statistics need more than 1 value per channel, got {list(y.shape)}")
        out, mean, invstd = torch.native_batch_norm(y, gamma, beta, mean_now, var_now, True, momentum, eps)
        if activation is not None:
            activation.apply_(out)
        needs_x, needs_rows = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        if not any(ctx.needs_input_grad):
            return out
        ctx.conv = conv = _Conv(x, rows, chosen, geometry)
        ctx.activation, ctx.eps = activation, eps
        ctx.source = None
        kept: tuple[Tensor | None, ...] = (None, None, None)
        if needs_rows:
            if source is not None:
                ctx.source = source.activation
                kept = (source.y, source.scale, source.shift)
            else:
                kept = (conv.read(x), None, None)
        needs_weight = needs_x or (needs_rows and chosen is None)
        ctx.save_for_backward(
            weight if needs_weight else None, y, gamma, beta, mean, invstd, mean_now, var_now, *kept
        )
        if activation is not None:
            scale = gamma.detach() * invstd
            made.append(Source(y, scale, beta.detach() - mean * scale, activation))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, y, gamma, beta, mean, invstd, mean_now, var_now, kept, kept_scale, kept_shift = (
            ctx.saved_tensors
        )
        needs_x, needs_rows, _, needs_bias, needs_gamma, needs_beta = ctx.needs_input_grad[:6]
        if ctx.activation is not None:
            scale = gamma * invstd
            before = _affine(y, scale, beta - mean * scale)
            grad = ctx.activation.backward(grad, before)
            del before
        grad, grad_gamma, grad_beta = torch.ops.aten.native_batch_norm_backward(
            grad.contiguous(memory_format=layout_of(y)), y, gamma, mean_now, var_now, mean, invstd, True,
            ctx.eps, [True, needs_gamma, needs_beta],
        )  # fmt: skip
        if ctx.source is not None:
            kept = ctx.conv.made_again(kept, kept_scale, kept_shift, ctx.source)
        grad_x, grad_rows = ctx.conv.gradients(grad, weight, kept, needs_x, needs_rows)
        grad_bias = grad.sum((0, 2, 3)) if needs_bias else None
        return (grad_x, grad_rows, None, grad_bias, grad_gamma, grad_beta, *(None,) * 6)


class SelectiveLinear(Function):
    """A linear map with gradients for its chosen rows, its bias, and, if needed, its input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        chosen: Tensor | None,
    ) -> Tensor:
        """Args: x [..., in]; rows [n, in], the values of `weight` at `chosen`, given only to receive their
        gradient; weight [out, in]; bias [out]; chosen int64 [n]."""
        ctx.save_for_backward(
            x if ctx.needs_input_grad[1] else None,
            weight if ctx.needs_input_grad[0] else None,
        )
        ctx.chosen = chosen
        ctx.dtype = None if rows is None else rows.dtype
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_rows = grad_bias = None
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        if ctx.needs_input_grad[0]:
            grad_x = grad_output @ weight
        if ctx.needs_input_grad[1]:
            grad_rows = (flat.index_select(1, ctx.chosen).T @ x.reshape(-1, x.shape[-1])).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            grad_bias = flat.sum(0)
        return grad_x, grad_rows, None, grad_bias, None


def _folded(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight with a scale of its output channels in it."""
    return (weight if scale is None else weight * scale.view(-1, 1, 1, 1)).to(dtype)


def _affine(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * y + shift by channel, in the layout of y."""
    shape = (1, -1, 1, 1)
    # In the norm's own precision, then rounded: as the norm did it.
    return torch.addcmul(shift.view(shape), y.to(scale.dtype), scale.view(shape)).to(y.dtype)
