"""Max pooling that keeps where in its window each maximum lies, in one byte, and not its input.

For a window of kernel k, dilation d that starts at s = stride * position - padding, the maximum at input
position i has the place (i - s) / d in the window, 0 .. k - 1 in each direction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.module_views import shadow

Pair = tuple[int, int]


class _MaxPool(Function):
    """Max pooling over [B, C, H, W]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool
    ) -> Tensor:
        """Args: as of torch's max_pool2d."""
        ctx.window = kernel, stride, padding, dilation, ceil
        out, index = torch.ops.aten.max_pool2d_with_indices(x, *ctx.window)
        if ctx.needs_input_grad[0]:
            ctx.like = x.shape, x.dtype, _layout(x)
            rows, columns = _starts(ctx.window, index)
            width = x.shape[3]
            row = (index.div(width, rounding_mode="floor") - rows).div_(dilation[0], rounding_mode="floor")
            column = (index.remainder(width) - columns).div_(dilation[1], rounding_mode="floor")
            ctx.save_for_backward(row.mul_(kernel[1]).add_(column).to(torch.uint8))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (place,) = ctx.saved_tensors
        kernel, _, _, dilation, _ = ctx.window
        shape, dtype, layout = ctx.like
        rows, columns = _starts(ctx.window, place)
        index = place.long()
        row = index.div(kernel[1], rounding_mode="floor").mul_(dilation[0]).add_(rows)
        index = row.mul_(shape[3]).add_(index.remainder_(kernel[1]).mul_(dilation[1]).add_(columns))
        # Only its shape and layout are read.
        x = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout)
        grads = torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *ctx.window, index)
        return grads, None, None, None, None, None


def _starts(window: tuple[Pair, Pair, Pair, Pair, bool], out: Tensor) -> tuple[Tensor, Tensor]:
    """First row and first column of each window, int64 [H, 1] and [W].

    Args:
        window: kernel, stride, padding, dilation, ceil.
        out: [B, C, H, W], one for each window.
    """
    _, stride, padding, *_ = window
    rows, columns = (
        torch.arange(out.shape[2 + axis], device=out.device) * stride[axis] - padding[axis] for axis in (0, 1)
    )
    return rows[:, None], columns


def _layout(x: Tensor) -> torch.memory_format:
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def is_max_pool(module: nn.Module | None) -> bool:
    """Whether a module is max pooling whose windows a byte can address."""
    return type(module) is nn.MaxPool2d and not module.return_indices and _area(module.kernel_size) <= 256


def max_pool(module: nn.Module) -> nn.Module:
    """The stand-in of max pooling.

    Args:
        module: of which `is_max_pool` is true.
    """
    assert isinstance(module, nn.MaxPool2d)
    made, forward = shadow(module), type(module).forward
    kernel, padding, dilation = map(_pair, (module.kernel_size, module.padding, module.dilation))
    stride, ceil = _pair(module.stride), module.ceil_mode

    def pooled(input: Tensor) -> Tensor:
        if input.dim() != 4 or not input.requires_grad:
            return forward(made, input)  # type: ignore[arg-type]
        out: Tensor = _MaxPool.apply(input, kernel, stride, padding, dilation, ceil)
        return out

    made.forward = pooled
    return made


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _area(kernel: int | Pair) -> int:
    height, width = _pair(kernel)
    return height * width
