"""Activations that follow no convolution: behind a residual sum, say, or behind a layer norm."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.activations import Activation, Clamp
from neq.backward.output_channels import layout_of
from neq.backward.recompute import RecomputeSpec, mark_recomputable, recompute_spec


class StandaloneClamp(Function):
    """out = min(max(x, 0), upper), of which backward keeps one bit an element: where 0 < x < upper."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Clamp, output_is_kept: bool) -> Tensor:
        """Args: x, any shape with 4 axes; output_is_kept: the next layer keeps the result, which serves as
        well as the bits."""
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


class ActivationOfRecomputed(Function):
    """act(x) of an x that backward recomputes from what earlier layers save, so that nothing is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, recompute: RecomputeSpec) -> Tensor:
        """Args: x, any shape; recompute: how to recompute x."""
        ctx.activation, ctx.compute = activation, recompute.compute
        ctx.save_for_backward(*recompute.kept)
        return activation.apply(x.clone() if isinstance(activation, Clamp) else x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.activation.backward(grad, ctx.compute(*ctx.saved_tensors)), None, None


def activation_of_recomputed(x: Tensor, activation: Activation) -> Tensor | None:
    """act(x), from which the next layer recomputes its input; None where x cannot be recomputed."""
    recompute = recompute_spec(x)
    if recompute is None:
        return None
    compute = recompute.compute
    out: Tensor = ActivationOfRecomputed.apply(x, activation, recompute)
    spec = RecomputeSpec(recompute.kept, lambda *kept: activation.apply(compute(*kept)), recompute.by_channel)
    mark_recomputable(out, spec)
    return out


def standalone_clamp(activation: Clamp, output_is_kept: bool) -> nn.Module:
    """The stand-in of an activation that clamps and follows no convolution.

    Args:
        activation: of the input, any shape.
        output_is_kept: the next layer keeps the result for its own backward.
    """
    made = nn.Identity()

    def forward(input: Tensor) -> Tensor:
        out = activation_of_recomputed(input, activation)
        return StandaloneClamp.apply(input, activation, output_is_kept) if out is None else out

    made.forward = forward  # type: ignore[method-assign]
    return made
