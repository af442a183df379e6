"""Stride, padding, dilation and groups of a convolution, and its gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's weight gradient of a strided 1x1 convolution in channels_last writes beyond its own memory where
# a group has fewer input channels than this (torch 2.15: crashes with 3 channels of 64x64 or more).
_BLOCK = 16


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation of a convolution, each (height, width), and its groups."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def gradients(
        self, grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool
    ) -> tuple[Tensor | None, Tensor]:
        """The gradients of the input, if needed, and of the whole weight."""
        grad_x, grad_weight = self._backward(grad, x, weight, self.groups, (needs_x, True))
        assert grad_weight is not None
        return grad_x, grad_weight

    def input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The gradient of the input, of which only shape and layout are read."""
        grad_x, _ = self._backward(grad, x, weight, self.groups, (True, False))
        assert grad_x is not None
        return grad_x

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        """The gradient of a weight, of which only shape and layout are read, with groups of its own."""
        _, grad_weight = self._backward(grad, x, weight, groups, (False, True))
        assert grad_weight is not None
        return grad_weight

    def _backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, groups: int, needs: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        if needs[1] and self._overruns(x, weight, groups):
            grad_x = self._backward(grad, x, weight, groups, (True, False))[0] if needs[0] else None
            read = x[:, :, :: self.stride[0], :: self.stride[1]][:, :, : grad.shape[2], : grad.shape[3]]
            read = read.contiguous(memory_format=torch.channels_last)
            return grad_x, replace(self, stride=(1, 1)).weight_gradient(grad, read, weight, groups)
        # torch.nn.grad's own wrapper is 9 times slower for the input's gradient of a 1x1 convolution.
        sides = (list(self.stride), list(self.padding), list(self.dilation))
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight, None, *sides, False, [0, 0], groups, [*needs, False]
        )
        return grad_x, grad_weight

    def _overruns(self, x: Tensor, weight: Tensor, groups: int) -> bool:
        """Whether the weight's gradient must not be computed with the stride; it reads every s-th pixel."""
        is_strided = weight.shape[2:] == (1, 1) and self.padding == (0, 0) and max(self.stride) > 1
        is_last = not x.is_cuda and x.is_contiguous(memory_format=torch.channels_last)
        return is_strided and is_last and x.shape[1] // groups < _BLOCK
