"""What training under a plan gained on validation, per second, and whether it is more than noise."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Gain:
    """What a plan gained.

    Args:
        before, after: validation top-1, 0 to 1.
        seconds: that it took, evaluation included.
        images: of the validation split.
    """

    before: float
    after: float
    seconds: float
    images: int

    @property
    def noise(self) -> float:
        """The standard error of a top-1 p on n images, sqrt(p (1 - p) / n), of that after."""
        return math.sqrt(self.after * (1 - self.after) / self.images)

    @property
    def rate(self) -> float:
        """Gain per second; 0 within the noise."""
        gain = self.after - self.before
        return gain / self.seconds if gain > self.noise else 0.0


@dataclass(frozen=True)
class Mean:
    """The decayed mean of a plan's gains.

    Args:
        rate: top-1 (0 to 1) per second.
        noise: the standard error of the last gain, in the same unit.
    """

    rate: float
    noise: float
