"""The handwritten digits that scikit-learn carries: 1797 grey images of 8 x 8, no download."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits

from neq.data.sources import Source


def open_digits(root: str | None = None) -> Source:
    """The digits, grey values 0 .. 16 scaled to 0 .. 255, without official splits.

    Args:
        root: not needed; the images come with scikit-learn.
    """
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    return Source(
        classes=tuple(str(name) for name in digits.target_names),
        labels=digits.target.astype(np.int64),
        image=partial(_image, pixels),
    )


def _image(pixels: np.ndarray, index: int) -> torch.Tensor:
    """Image `index` of uint8 [n, 8, 8] as uint8 [3, 8, 8]."""
    return torch.from_numpy(pixels[index]).expand(3, -1, -1)
