"""Linear layers of which only a slice of the weight trains."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.autocast import autocast
from neq.backward.module_views import shadow
from neq.backward.recompute import RecomputeSpec, recompute_spec
from neq.backward.trainable_layer import TrainableLayer
from neq.networks.parameter_slice import ParameterSlice


class SelectiveLinear(Function):
    """x W^T + b, with gradients for a slice of W, for b, and, if needed, for x.

    With g_NO = dL/dy over N rows of input x_NI, chosen output channels C need dL/dW_CI = g_NC^T x_NI, chosen
    input channels R need dL/dW_OR = g_NO^T x_NR and keep x_NR alone; dL/db = sum over N of g, dL/dx = g W.
    Where x can be recomputed from what earlier layers save, nothing of it is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_slice: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        part: ParameterSlice,
        saved_dtype: torch.dtype | None,
        recompute: RecomputeSpec | None,
    ) -> Tensor:
        """Args: x [..., I]; weight_slice, the values of `weight` at `part`, given only to receive their
        gradient; weight [O, I]; bias [O]; saved_dtype: type that the input is kept in; None: its own;
        recompute: how to recompute x, if it can be."""
        kept: tuple[Tensor, ...] = ()
        if ctx.needs_input_grad[1] and recompute is not None:
            kept = recompute.kept
        elif ctx.needs_input_grad[1]:
            of_chosen = _read(x, part)
            kept = (of_chosen if saved_dtype is None else of_chosen.to(saved_dtype),)
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, *kept)
        ctx.part, ctx.compute = part, None if recompute is None else recompute.compute
        ctx.dtype = None if weight_slice is None else weight_slice.dtype
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        grad_x = grad_slice = grad_bias = None
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        if ctx.needs_input_grad[0]:
            grad_x = grad_output @ weight.to(grad_output.dtype)
        if ctx.needs_input_grad[1]:
            x = kept[0] if ctx.compute is None else _read(ctx.compute(*kept), ctx.part)
            x = x.reshape(-1, x.shape[-1]).to(flat.dtype)
            of_chosen = (
                flat
                if ctx.part.axis == 1 or ctx.part.is_whole
                else ParameterSlice(ctx.part.index, axis=1).take(flat)
            )
            grad_slice = (of_chosen.T @ x).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            grad_bias = flat.sum(0)
        return grad_x, grad_slice, None, grad_bias, None, None, None


def _read(x: Tensor, part: ParameterSlice) -> Tensor:
    """The part of an input [..., I] that the weight's gradient needs: all of it, or the chosen channels."""
    return x if part.is_whole or part.axis == 0 else ParameterSlice(part.index, axis=x.dim() - 1).take(x)


def linear_stand_in(module: nn.Module, trains: TrainableLayer) -> nn.Module:
    """The stand-in of a linear layer."""
    if trains.is_stock:
        return shadow(module, trains.in_place)
    assert isinstance(module, nn.Linear)
    made = shadow(module)
    part = trains.part.on(module.weight.device)

    def forward(input: Tensor) -> Tensor:
        weight, given = module.weight.detach(), autocast(input)
        recompute = recompute_spec(input) if given is input and input.dtype == weight.dtype else None
        return SelectiveLinear.apply(
            given, trains.weight, weight, trains.bias(), part, trains.saved_dtype, recompute
        )

    made.forward = forward
    return made
