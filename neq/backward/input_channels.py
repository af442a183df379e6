"""Which input channels of a dense convolution's weight are chosen, and how its gradient reaches only them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neq.backward.geometry import Geometry
from neq.backward.output_channels import empty_like_layout, pick_channels


@dataclass(frozen=True)
class ConvColumns:
    """The chosen input channels of a convolution without groups: only they are kept of its input.

    Args:
        inputs: chosen input channels, int64 [n], ascending.
    """

    inputs: Tensor

    def read(self, x: Tensor) -> Tensor:
        """The part of an input [B, in, H, W] that the gradient needs."""
        return pick_channels(x, self.inputs)

    def gradient(self, grad_output: Tensor, kept: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
        """The gradient of the chosen columns.

        Args:
            grad_output: of the convolution's result [B, out, H, W].
            kept: what `read` gave.
            geometry: of the convolution.
            shape: of the columns, [out, n, kh, kw].
        """
        like = empty_like_layout(kept, tuple(shape))
        return geometry.weight_gradient(grad_output, kept, like, groups=1)

    def scale(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """The gradient [out, n, kh, kw] times a factor of each output channel [out]."""
        return gradient * scale.view(-1, 1, 1, 1)
