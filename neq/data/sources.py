"""What a data set is: images by number, their labels, and the splits it was published with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Source:
    """A data set before it is split and transformed; it pickles, so that loader processes can have it.

    Args:
        classes: the class names, in the order of the labels.
        labels: int64 [n], each in 0 .. len(classes) - 1.
        image: image i as uint8 [3, H, W]; a function at module level or a `functools.partial` of one,
            which raises UserError for a file that cannot be read.
        official: the published splits, int64 indices into `labels`, disjoint; a split that is not there
            is made by `neq.data.splits`. Without `train`, every image in no other split is a training image.
        fingerprint: what tells this copy of the images from another; none where there is only one.
        notes: what the user should know about how the data was read.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    image: Callable[[int], torch.Tensor]
    official: Mapping[Split, np.ndarray] = field(default_factory=dict)
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
