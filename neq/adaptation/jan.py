"""JAN: the same joint distribution of features and predictions in both domains.

    MMD^2 with the kernel k(f, f') k(p, p'),    k(p, p') = exp(-||p - p'||^2 / (2 sigma^2)),    sigma = .92

p = softmax(o); k(f, f') and MMD^2 are those of `neq.adaptation.dan`.

Source: Long et al., "Deep Transfer Learning with Joint Adaptation Networks", ICML 2017, eq. 9.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.adaptation.dan import kernel, mmd, squared_distances
from neq.adaptation.method import Both, Method

SIGMA = 0.92


class Jan(Method):
    """MMD^2 of features and predictions together, unbiased."""

    has_shares = False

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        return mmd(kernel(both.features) * kernel_of_predictions(both.outputs.softmax(1)))


def kernel_of_predictions(p: Tensor) -> Tensor:
    """k(p, p') of all pairs, [n, n].

    Args:
        p: probabilities, [n, K].
    """
    return torch.exp(-squared_distances(p) / (2 * SIGMA**2))
