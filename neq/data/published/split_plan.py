"""Plan of a prepared split: which image goes to which folder, checked before anything is written."""

from __future__ import annotations

import itertools
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from neq.data.published.published_set import SPLIT_FOLDERS, ListedImage, SplitFolder, check_lists
from neq.data.sources import Split
from neq.utils.errors import UserError

_SEED = "neq validation split"


class PlannedImage(NamedTuple):
    """An image to be written to OUT/split/class_folder/name."""

    split: SplitFolder
    class_folder: str
    name: str
    source: Path


def plan_split(listed: Sequence[ListedImage], raw: Path, validation: float | None) -> list[PlannedImage]:
    """Choose the place of every image.

    Args:
        listed: the official splits.
        raw: the folder that holds the images.
        validation: None: the official splits as they are. Otherwise an official validation split is merged
            into train, and this share (0 <= share < 1) of each class of train becomes validation, always the
            same images.

    Returns:
        The images, sorted by their place.

    Raises:
        UserError: the lists contradict themselves, or name images that are absent or empty.
    """
    check_lists(listed)
    _check_files(listed, raw)
    splits = [image.split for image in listed] if validation is None else _cut(listed, validation)
    largest = max(image.class_id for image in listed)
    plan = sorted(
        PlannedImage(
            SPLIT_FOLDERS[split],
            class_folder(image.class_id, image.class_name, largest),
            PurePosixPath(image.path).name,
            raw / image.path,
        )
        for split, image in zip(splits, listed, strict=True)
    )
    for first, second in itertools.pairwise(plan):
        if first[:3] == second[:3]:
            raise UserError(
                f"the lists name two images {first.name!r} of class {first.class_folder!r} in {first.split} "
                f"({str(first.source)!r}, {str(second.source)!r}); each image needs its own name; unpack the "
                "published archive again"
            )
    return plan


def class_folder(number: int, name: str, largest: int) -> str:
    """The folder of a class: its number, which makes it unique, and its name for the reader.

    Args:
        number: the official number of the class, from 0 or 1.
        name: the official name, which may begin with the number (`007.Name`); blanks become underscores,
            characters that a file system may refuse are dropped.
        largest: the largest number of the set; all numbers are padded to its width, so that the names sort
            like the numbers.
    """
    safe = re.sub(r"[^\w.-]", "", re.sub(r"\s+", "_", name.strip()), flags=re.ASCII)
    safe = re.sub(rf"^0*{number}\.(?=.)", "", safe)
    return f"{number:0{len(str(largest))}d}" + (f".{safe}" if safe else "")


def _check_files(listed: Sequence[ListedImage], raw: Path) -> None:
    """Refuse images that are absent or empty, all of them counted in one line."""
    paths = {image.path: raw / image.path for image in listed}
    bad = [name for name, path in paths.items() if not (path.is_file() and path.stat().st_size)]
    if bad:
        named = ", ".join(repr(path) for path in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise UserError(
            f"{len(bad):,} of {len(listed):,} images named in the lists are absent from {str(raw)!r} or "
            f"empty ({named}); delete their folder and run again to unpack it"
        )


def _cut(listed: Sequence[ListedImage], share: float) -> list[Split]:
    """The split of every image if a share of each class of train becomes validation.

    Each class is shuffled by its own generator, seeded with the class number, so the lists alone decide which
    images are taken.
    """
    splits: list[Split] = ["test" if image.split == "test" else "train" for image in listed]
    if share == 0:
        return splits
    members = defaultdict(list)
    for index, image in enumerate(listed):
        if splits[index] == "train":
            members[image.class_id].append(index)
    for number, indices in members.items():
        if len(indices) < 2:
            raise UserError(
                f"class {number} has {len(indices)} training image; a validation split needs at least 2; "
                "leave out --validation"
            )
        indices.sort(key=lambda index: listed[index].path)
        random.Random(f"{_SEED} {number}").shuffle(indices)
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        for index in indices[:count]:
            splits[index] = "validation"
    return splits
