"""Autograd functions whose backward computes and stores no more than a selection needs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.selective.rows import ConvRows, empty_like_layout, layout_of

Pair = tuple[int, int]


class SelectiveConv2d(Function):
    """A 2-D convolution with gradients for its chosen rows, its bias, and, if needed, its input.

    The input is stored only if a row is chosen, and of a grouped convolution only the channels that the
    chosen rows read.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        chosen: ConvRows | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Tensor:
        """Args: x [B, in, H, W]; rows [n, in / groups, kh, kw], the values of `weight` at `chosen`, given
        only to receive their gradient; weight [out, in / groups, kh, kw]; bias [out]."""
        ctx.geometry = (list(stride), list(padding), list(dilation))
        ctx.groups, ctx.chosen = groups, chosen
        ctx.like = (x.shape, layout_of(x), x.dtype)
        kept = chosen.read(x) if chosen is not None and ctx.needs_input_grad[1] else None
        ctx.rows = None if rows is None else (rows.shape, rows.dtype)
        ctx.save_for_backward(kept, weight if ctx.needs_input_grad[0] else None)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        grad_x = grad_rows = grad_bias = None
        if ctx.needs_input_grad[0]:
            shape, layout, dtype = ctx.like
            # Its values are not read, only its shape and layout.
            x = torch.empty(shape, dtype=dtype, device=grad_output.device, memory_format=layout)
            grad_x, _ = _conv_backward(grad_output, x, weight, ctx.geometry, ctx.groups, needs=(True, False))
        if ctx.needs_input_grad[1]:
            chosen: ConvRows = ctx.chosen
            gathered = chosen.gather(grad_output)
            shape, dtype = ctx.rows
            like = empty_like_layout(kept, (chosen.padded, *shape[1:]))
            _, grad_rows = _conv_backward(
                gathered, kept, like, ctx.geometry, chosen.used_groups, needs=(False, True)
            )
            assert grad_rows is not None
            if chosen.slots is not None:
                grad_rows = grad_rows.index_select(0, chosen.slots)
            grad_rows = grad_rows.to(dtype)
        if ctx.needs_input_grad[3]:
            grad_bias = grad_output.sum((0, 2, 3))
        return grad_x, grad_rows, None, grad_bias, None, None, None, None, None


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
            chosen,
        )
        ctx.dtype = None if rows is None else rows.dtype
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, chosen = ctx.saved_tensors
        grad_x = grad_rows = grad_bias = None
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        if ctx.needs_input_grad[0]:
            grad_x = grad_output @ weight
        if ctx.needs_input_grad[1]:
            grad_rows = (flat.index_select(1, chosen).T @ x.reshape(-1, x.shape[-1])).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            grad_bias = flat.sum(0)
        return grad_x, grad_rows, None, grad_bias, None


def _conv_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    geometry: tuple[list[int], list[int], list[int]],
    groups: int,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of input and weight; torch.nn.grad's own wrapper is 9 times slower for a 1x1 input."""
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_output, x, weight, None, *geometry, False, [0, 0], groups, [*needs, False]
    )
    return grad_x, grad_weight
