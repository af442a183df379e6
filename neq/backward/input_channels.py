"""The chosen input channels of a dense convolution, and the gradient of their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neq.backward.geometry import Geometry
from neq.backward.output_channels import empty_like_layout, pick_channels


@dataclass(frozen=True)
class InputChannels:
    """The chosen input channels R of a convolution without groups: only they are kept of its input.

        dL/dW_ORKL = sum over B, P, Q of g_BOPQ x_BRHW    (shifted by K, L)

    Args:
        inputs: R, int64 [n], ascending.

    Source: Lin et al., "On-device training under 256KB memory", NeurIPS 2022 (sparse tensor update).
    """

    inputs: Tensor

    def read(self, x: Tensor) -> Tensor:
        """x_BRHW, the part of an input [B, I, H, W] that the gradient needs."""
        return pick_channels(x, self.inputs)

    def gradient(self, grad_output: Tensor, kept: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
        """The gradient of the weights of the chosen input channels.

        Args:
            grad_output: of the convolution's result [B, O, P, Q].
            kept: what `read` returned.
            geometry: of the convolution.
            shape: of the gradient, [O, n, K, L].
        """
        like = empty_like_layout(kept, tuple(shape))
        return geometry.weight_gradient(grad_output, kept, like, groups=1)

    def scale(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """The gradient [O, n, K, L] times a factor of each output channel [O]."""
        return gradient * scale.view(-1, 1, 1, 1)
