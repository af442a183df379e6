"""Train, validation, velocity and test images of a run: disjoint sets of indices.

The test images are the same for every seed, as results of several seeds are averaged and compared, which
requires that all were measured on the same images. Validation and velocity images are drawn anew for every
seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from neq.config.schema import DataProvider
from neq.data.sources import Source
from neq.utils.errors import UserError
from neq.utils.seeds import generator, seed_for

TEST_SHARE = 0.2
_TEST_SEED = seed_for(0, "test")


def split(source: Source, settings: DataProvider, seed: int) -> dict[str, np.ndarray]:
    """Divide a data set.

    An official test or validation split is used as it is; otherwise the test split is 20 % of the training
    images, and validation `validation_percentage` of the rest. Without `use_validation` an official
    validation split stays unused: it never becomes training data. Of a split that `velocity_images` would
    empty, half is drawn for velocities.

    Args:
        source: the data set.
        settings: `use_validation`, `validation_percentage`, `use_validation_for_velocity`,
            `velocity_images` and `train_part` are read.
        seed: the run's seed.

    Returns:
        Sorted int64 indices of `train`, `validation` (empty without `use_validation`), `velocity` (taken
        out of validation or train) and `test`.

    Raises:
        UserError: fewer than two classes, an empty split, no image for velocity, or a class that is tested
            but not trained.
    """
    if len(source.classes) < 2:
        raise UserError(
            f"the data set has {len(source.classes)} class(es), {', '.join(source.classes)}; "
            "at least 2 are needed; add the other classes, or give the folder in which the classes lie."
        )
    official, labels = source.official, source.labels
    elsewhere = np.concatenate([np.arange(0), *official.values()])
    train = official.get("train", np.setdiff1d(np.arange(len(labels)), elsewhere))
    test, validation = official.get("test"), official.get("validation")
    if test is None:
        train, test = _cut("test", train, labels, TEST_SHARE, _TEST_SEED)
    if not settings.use_validation:
        validation = np.arange(0)
    elif validation is None:
        share = settings.validation_percentage
        train, validation = _cut("validation", train, labels, share, seed_for(seed, "validation"))
    train = _part(train, labels, settings.train_part)
    parts = {"train": train, "validation": validation, "test": test}
    pool = "validation" if settings.use_validation and settings.use_validation_for_velocity else "train"
    parts[pool], parts["velocity"] = _draw(pool, parts[pool], settings.velocity_images, seed)
    _check(parts, source, settings)
    return {name: np.sort(part).astype(np.int64) for name, part in parts.items()}


def resplit(source: Source, shares: tuple[float, float, float], of: str) -> Source:
    """A data set with other splits, stratified and the same for every seed.

    Sets that list the same photos in the same order, such as one set under several corruptions, get the same
    photos in each split.

    Args:
        source: the data set.
        shares: of train, validation and test; they sum to 1.
        of: "all" divides all images, "test" those of the official test split; the others are left out.

    Raises:
        UserError: there is no official test split, or too few images.
    """
    images = np.arange(len(source.labels))
    if of == "test":
        if "test" not in source.official:
            raise UserError("split_of 'test' needs an official test split, which this data set has not")
        images = source.official["test"]
    _, validation_share, test_share = shares
    rest, test = _cut("test", images, source.labels, test_share, _TEST_SEED)
    share = validation_share / (1 - test_share)
    train, validation = _cut("validation", rest, source.labels, share, seed_for(0, "validation"))
    return replace(source, official={"train": train, "validation": validation, "test": test})


def velocity_note(counts: Mapping[str, int], settings: DataProvider) -> str | None:
    """One line if there are fewer velocity images than the settings ask for, else None.

    Args:
        counts: images of each split.
        settings: `velocity_images` is read.
    """
    drawn = counts["velocity"]
    if drawn == settings.velocity_images:
        return None
    return (
        f"velocities are measured on {drawn} images, half of a small split, instead of "
        f"velocity_images {settings.velocity_images}"
    )


def _cut(
    name: str, indices: np.ndarray, labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a share (rounded up) off the indices, stratified by class if each class has images for both parts.

    Returns:
        The remaining indices, and those that were cut off.
    """
    count = ceil(share * len(indices))
    if not 0 < count < len(indices):
        raise UserError(
            f"the {name} split would take {count} of {len(indices)} images, which leaves an empty split; "
            + ("give other split_shares or validation_percentage, or " if name == "validation" else "")
            + "add images."
        )
    sizes = np.unique(labels[indices], return_counts=True)[1]
    by_class = sizes.min() >= 2 and len(sizes) <= min(count, len(indices) - count)
    kept, cut = train_test_split(
        indices,
        test_size=count,
        random_state=seed % 2**32,
        stratify=labels[indices] if by_class else None,
    )
    return kept, cut


def _part(indices: np.ndarray, labels: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    """The images from one share to another, of each class, in an order that is the same for every seed."""
    if part == (0, 1):
        return indices
    order = torch.randperm(len(indices), generator=generator(0, "part")).numpy()
    mixed = np.sort(indices)[order]
    of_class = [mixed[labels[mixed] == label] for label in np.unique(labels[mixed])]
    return np.concatenate(
        [each[round(part[0] * len(each)) : round(part[1] * len(each))] for each in of_class]
    )


def _draw(pool: str, indices: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the velocity images out of a split: the remaining indices, and the drawn ones."""
    if len(indices) < 2:
        raise UserError(
            f"the {pool} split has {len(indices)} image(s), but one is taken out of it for velocities, and "
            "one must stay; add images"
            + (", or raise validation_percentage." if pool == "validation" else ".")
        )
    if len(indices) <= count:
        count = len(indices) // 2
    order = torch.randperm(len(indices), generator=generator(seed, "velocity")).numpy()
    return indices[order[count:]], indices[order[:count]]


def _check(parts: dict[str, np.ndarray], source: Source, settings: DataProvider) -> None:
    """Refuse an empty split, and a class that is tested but not trained."""
    for name, part in parts.items():
        if len(part) == 0 and (name != "validation" or settings.use_validation):
            raise UserError(f"the {name} split has 0 of {len(source.labels)} images; add images to it.")
    untrained = np.setdiff1d(source.labels[parts["test"]], source.labels[parts["train"]])
    if len(untrained):
        raise UserError(
            f"class {source.classes[untrained[0]]!r} (one of {len(untrained)}) has test images but none of "
            f"the {len(parts['train'])} training images; add images of it, lower validation_percentage, "
            "or remove the class."
        )
