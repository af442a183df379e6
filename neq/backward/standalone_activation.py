"""An activation that clamps and follows no convolution: behind a residual sum, say."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.activations import Clamp
from neq.backward.output_channels import layout_of


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


def standalone_clamp(activation: Clamp, output_is_kept: bool) -> nn.Module:
    """The stand-in of an activation that clamps and follows no convolution.

    Args:
        activation: of the input, any shape.
        output_is_kept: the next layer keeps the result for its own backward.
    """
    made = nn.Identity()

    def forward(input: Tensor) -> Tensor:
        return StandaloneClamp.apply(input, activation, output_is_kept)

    made.forward = forward  # type: ignore[method-assign]
    return made
