"""Max pooling that keeps where in its window each maximum lies, in two bytes, and not its input.

torch's index of a maximum counts the pixels of its map, row by row. From the first pixel of its window on,
at stride * position - padding, it is small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.module_views import shadow

Pair = tuple[int, int]
# Kernel, stride, padding, dilation and ceil_mode, as torch's operators take them.
Window = tuple[Pair, Pair, Pair, Pair, bool]


class MaxPool2d(Function):
    """Max pooling over [B, C, H, W]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        """Args: x and window."""
        out, index = torch.ops.aten.max_pool2d_with_indices(x, *window)
        ctx.window, ctx.like = window, (x.shape, x.dtype, _layout(x))
        ctx.save_for_backward(index.sub_(_first(window, index, x.shape[3])).to(torch.int16))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (offset,) = ctx.saved_tensors
        shape, dtype, layout = ctx.like
        index = offset.long().add_(_first(ctx.window, offset, shape[3]))
        # Only its shape and layout are read.
        x = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout)
        return torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *ctx.window, index), None


def _first(window: Window, out: Tensor, width: int) -> Tensor:
    """The index of each window's first pixel, int64 [P, Q]; in the padding it may be below 0.

    Args:
        window: of the pooling.
        out: [B, C, P, Q], one element for each window.
        width: of the pooled map.
    """
    _, stride, padding, *_ = window
    rows, columns = (
        torch.arange(out.shape[2 + axis], device=out.device) * stride[axis] - padding[axis] for axis in (0, 1)
    )
    return rows[:, None] * width + columns


def _layout(x: Tensor) -> torch.memory_format:
    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


def is_max_pool(module: nn.Module | None) -> bool:
    """Whether a module is max pooling over images that returns no indices."""
    return type(module) is nn.MaxPool2d and not module.return_indices


def max_pool(module: nn.Module) -> nn.Module:
    """The stand-in of max pooling.

    Args:
        module: of which `is_max_pool` is true.
    """
    assert isinstance(module, nn.MaxPool2d)
    made, forward = shadow(module), type(module).forward
    kernel, stride, padding, dilation = (
        (value, value) if isinstance(value, int) else (value[0], value[1])
        for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    window = kernel, stride, padding, dilation, module.ceil_mode

    def pooled(input: Tensor) -> Tensor:
        last = dilation[0] * (kernel[0] - 1) * input.shape[-1] + dilation[1] * (kernel[1] - 1)
        if input.dim() != 4 or not input.requires_grad or last > torch.iinfo(torch.int16).max:
            return forward(made, input)  # type: ignore[arg-type]
        out: Tensor = MaxPool2d.apply(input, window)
        return out

    made.forward = pooled
    return made
