"""What the parts of a scheme contribute: gains in validation accuracy over training the head alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neq.selection import StaticScheme

# Percentage points that a validation loss lower by 1 is worth: it decides between equal accuracies.
TIE = 1e-3
# A conv by its number in module order, and the share of its neurons that trains.
Part = tuple[int, float]
# Of parts by proxies, by name.
Scores = Mapping[str, Mapping[Part, float]]


@dataclass(frozen=True)
class Measured:
    """The result of a scheme's short runs, mean of its seeds.

    Args:
        val_top1, val_loss, test_top1: of each run's best epoch by validation; accuracies in per cent.
        runs: their folders.
    """

    val_top1: float
    val_loss: float
    test_top1: float
    runs: tuple[str, ...] = ()

    def gain(self, over: Measured) -> float:
        """The gain in validation accuracy, in percentage points."""
        return self.val_top1 - over.val_top1 + TIE * (over.val_loss - self.val_loss)


@dataclass(frozen=True)
class Contributions:
    """What each part of a scheme contributes: percentage points, or the scores of a proxy.

    Args:
        weights: gain of updating each part.
        biases: number of last convs whose biases train -> gain; 0 -> 0.

    Parts whose runs diverged are left out.
    """

    weights: Mapping[Part, float]
    biases: Mapping[int, float]

    def predicted(self, scheme: StaticScheme) -> float | None:
        """The sum of a scheme's contributions; biases in between are interpolated.

        None where a part of it has none.
        """
        listed = [pair for pair in zip(scheme.indices, scheme.ratios, strict=True) if pair[1] > 0]
        counts = sorted(self.biases)
        if not all(pair in self.weights for pair in listed) or scheme.n_bias_update > counts[-1]:
            return None
        gains = [self.biases[count] for count in counts]
        bias = float(np.interp(scheme.n_bias_update, counts, gains))
        return bias + sum(self.weights[pair] for pair in listed)
