"""DAN: the same distribution of the features in both domains, by the maximum mean discrepancy.

    MMD^2 = mean k(s, s') + mean k(t, t') - 2 mean k(s, t)
    k(x, y) = sum over a in 2^-3 .. 2^1 of exp(-||x - y||^2 / (2 a m))

m is the mean of all (2B)^2 squared distances of both domains, without a gradient. The unbiased form leaves
k(x, x) out of the means; both are quadratic in B, and unlike the linear-time form they use every pair.

Source: Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015; Gretton et
al., "A Kernel Two-Sample Test", JMLR 13, 2012, eq. 3 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neq.adaptation.method import Both, Method

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)


class Dan(Method):
    """MMD^2 of the features, unbiased."""

    has_shares = False

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        return mmd(kernel(both.features))


def kernel(x: Tensor, widths: Sequence[float] = WIDTHS) -> Tensor:
    """k of all pairs, [n, n].

    Args:
        x: [n, d].
        widths: a, in units of the mean squared distance.
    """
    distances = squared_distances(x)
    mean = distances.detach().mean()
    return torch.stack([torch.exp(-distances / (2 * width * mean)) for width in widths]).sum(0)


def squared_distances(x: Tensor) -> Tensor:
    """||x_i - x_j||^2 of all pairs, [n, n]."""
    norms = x.square().sum(1)
    return (norms[:, None] + norms[None] - 2 * x @ x.T).clamp_min(0)


def mmd(k: Tensor, biased: bool = False) -> Tensor:
    """MMD^2, [].

    Args:
        k: kernel of all pairs, [2B, 2B], the source images first.
        biased: whether k(x, x) counts; then it is never negative.
    """
    images = len(k) // 2
    within_source, within_target = k[:images, :images], k[images:, images:]
    across = k[:images, images:].mean()
    if biased:
        return within_source.mean() + within_target.mean() - 2 * across
    pairs = images * (images - 1)
    sums = [each.sum() - each.diagonal().sum() for each in (within_source, within_target)]
    return (sums[0] + sums[1]) / pairs - 2 * across
