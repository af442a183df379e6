"""CORAL: the same covariances of the features in both domains.

    R = ||C_s - C_t||_F^2 / (4 d^2),    C = (sum_i x_i x_i^T - n m m^T) / (n - 1)

Suggested weight: 10. Source: Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation",
2016, eq. 1-3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.adaptation.method import Both, Mean, Method


class Coral(Method):
    """The distance of the covariances of the features."""

    weight = 10.0

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        (source, _), (target, _) = both.source, both.target
        images = both.images
        return coral(covariance(source, images, both.mean), covariance(target, images, both.mean))


def coral(source: Tensor, target: Tensor) -> Tensor:
    """||C_s - C_t||_F^2 / (4 d^2) of two covariances [d, d]."""
    return (source - target).square().sum() / (4 * len(source) ** 2)


def covariance(x: Tensor, images: float, mean: Mean = lambda value: value) -> Tensor:
    """C [d, d] over the whole batch.

    Args:
        x: this process' share of the batch, [B, d].
        images: n, of the whole batch.
        mean: over the whole batch.
    """
    x = x - mean(x.detach().mean(0))  # the difference of large moments would lose digits
    moments = mean(torch.cat([x.mean(0, keepdim=True), x.T @ x / len(x)]))
    off, second = moments[0], moments[1:]
    return (second - torch.outer(off, off)) * (images / (images - 1))
