"""Autograd functions of what stands alone: a linear layer, and an activation behind no convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.activations import Clamp
from neq.backward.output_channels import layout_of
from neq.networks.parameter_slice import ParameterSlice


class StandaloneClamp(Function):
    """An activation that clamps, behind something else than a convolution: behind a residual sum, say."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Clamp, output_is_kept: bool) -> Tensor:
        """Args: x, any shape with 4 axes; output_is_kept: the next layer keeps the result."""
        out = activation.apply(x.clone())
        if ctx.needs_input_grad[0]:
            ctx.activation, ctx.layout = activation, None if output_is_kept else layout_of(out)
            ctx.save_for_backward(out if output_is_kept else activation.mask(out))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (kept,) = ctx.saved_tensors
        if ctx.layout is None:
            return ctx.activation.backward(grad, kept), None, None
        return ctx.activation.masked(grad, kept, ctx.layout), None, None


class SelectiveLinear(Function):
    """A linear map with gradients for the chosen part of its weight, its bias, and, if needed, its input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        part: ParameterSlice,
        stored: torch.dtype | None,
    ) -> Tensor:
        """Args: x [..., in]; rows, the values of `weight` at `part`, given only to receive their gradient;
        weight [out, in]; bias [out]; stored: type that the input is kept in."""
        kept = None
        if ctx.needs_input_grad[1]:
            kept = (
                x if part.is_whole or part.axis == 0 else ParameterSlice(part.index, axis=x.dim() - 1).take(x)
            )
            kept = kept if stored is None else kept.to(stored)
        ctx.save_for_backward(kept, weight if ctx.needs_input_grad[0] else None)
        ctx.part = part
        ctx.dtype = None if rows is None else rows.dtype
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight = ctx.saved_tensors
        grad_x = grad_rows = grad_bias = None
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        if ctx.needs_input_grad[0]:
            grad_x = grad_output @ weight.to(grad_output.dtype)
        if ctx.needs_input_grad[1]:
            x = kept.reshape(-1, kept.shape[-1]).to(flat.dtype)
            of_rows = (
                flat
                if ctx.part.axis == 1 or ctx.part.is_whole
                else ParameterSlice(ctx.part.index, axis=1).take(flat)
            )
            grad_rows = (of_rows.T @ x).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            grad_bias = flat.sum(0)
        return grad_x, grad_rows, None, grad_bias, None, None
