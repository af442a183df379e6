"""DDC: the same mean of the features in both domains, that is MMD with a linear kernel.

    R = ||mean f_s - mean f_t||^2

Suggested weight: .25. Source: Tzeng et al., "Deep Domain Confusion: Maximizing for Domain Invariance", 2014,
eq. 1-2.
"""

from __future__ import annotations

from torch import Tensor

from neq.adaptation.method import Both, Method


class Ddc(Method):
    """The squared distance of the means of the features."""

    weight = 0.25

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        (source, _), (target, _) = both.source, both.target
        return distance_of_means(both.mean(source.mean(0)), both.mean(target.mean(0)))


def distance_of_means(source: Tensor, target: Tensor) -> Tensor:
    """||m_s - m_t||^2 of two means [d]."""
    return (source - target).square().sum()
