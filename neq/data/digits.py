"""Handwritten digits included in scikit-learn: 1797 grey images of 8 x 8, no download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from neq.data.sources import Source, source_of_arrays


def open_digits(root: str | None = None) -> Source:
    """The digits, grey values 0 .. 16 scaled to 0 .. 255, without official splits.

    Args:
        root: ignored; the images are part of scikit-learn.
    """
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    return source_of_arrays([str(name) for name in digits.target_names], {"train": (pixels, digits.target)})
