"""From the official lists to a plan: which file goes where. Everything that can be wrong is found here."""

from __future__ import annotations

import hashlib
import itertools
import random
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from neq.preparing.published import SPLITS, Listed, Split, class_folder
from neq.utils.errors import UserError

_SEED = "neq validation split"


class Item(NamedTuple):
    """An image to be written to OUT/split/folder/name."""

    split: Split
    folder: str
    name: str
    source: Path


def check_counts(listed: Iterable[Listed], official: Mapping[Split, int]) -> list[str]:
    """How the lists deviate from the official numbers of images, one sentence a split; empty: not at all."""
    found = Counter(image.split for image in listed)
    return [
        f"{split} has {found[split]:,} images, officially {official.get(split, 0):,}"
        for split in SPLITS
        if found[split] != official.get(split, 0)
    ]


def make_plan(listed: Sequence[Listed], raw: Path, validation: float | None) -> list[Item]:
    """Decides the place of every image.

    Args:
        listed: the official splits.
        raw: the folder that holds the images.
        validation: none: the official splits as they are. Else the official validation split, if there is
            one, goes back to train, and this share (0 .. 1) of each class of train becomes validation, the
            same images every time.

    Returns:
        One item an image, sorted.

    Raises:
        UserError: the lists contradict themselves, or name images that are absent or empty.
    """
    _check_lists(listed)
    _check_files(listed, raw)
    splits = [image.split for image in listed] if validation is None else _cut(listed, validation)
    largest = max((image.class_id for image in listed), default=0)
    items = sorted(
        Item(
            split,
            class_folder(image.class_id, image.class_name, largest),
            PurePosixPath(image.path).name,
            raw / image.path,
        )
        for split, image in zip(splits, listed, strict=True)
    )
    for first, second in itertools.pairwise(items):
        if first[:3] == second[:3]:
            raise UserError(
                f"the lists name two images {first.name!r} of class {first.folder!r} in {first.split} "
                f"({str(first.source)!r}, {str(second.source)!r}); one name an image is needed; unpack the "
                "published archive again."
            )
    return items


def digest(items: Iterable[Item]) -> str:
    """The sha256 of a plan: two plans with the same write the same names."""
    total = hashlib.sha256()
    for item in items:
        total.update("\0".join(item[:3]).encode() + b"\n")
    return total.hexdigest()


def _check_lists(listed: Sequence[Listed]) -> None:
    """Refuses an image listed twice, a class of two names, and a path that leads out of the folder."""
    if not listed:
        raise UserError("the lists name no image; unpack the published archive again.")
    seen: dict[str, Split] = {}
    names: dict[int, str] = {}
    for image in listed:
        path = PurePosixPath(image.path)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f"the lists name {image.path!r}, which leads out of the folder; they are not the published "
                "ones; unpack the archive again."
            )
        if image.path in seen:
            raise UserError(
                f"the lists name image {image.path!r} twice, in {seen[image.path]} and in {image.split}; no "
                "image may be in two splits; unpack the published archive again."
            )
        seen[image.path] = image.split
        name = names.setdefault(image.class_id, image.class_name)
        if name != image.class_name:
            raise UserError(
                f"the lists call class {image.class_id} both {name!r} and {image.class_name!r}; one name a "
                "class is needed; unpack the published archive again."
            )


def _check_files(listed: Sequence[Listed], raw: Path) -> None:
    """Refuses images that are absent or empty, all of them counted in one line."""
    bad = [image.path for image in listed if not _has_content(raw / image.path)]
    if bad:
        shown = ", ".join(repr(path) for path in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise UserError(
            f"{len(bad):,} of {len(listed):,} images named in the lists are absent from {str(raw)!r} or "
            f"empty ({shown}); delete their folder and run again to unpack it anew."
        )


def _has_content(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _cut(listed: Sequence[Listed], share: float) -> list[Split]:
    """The split of every image when a share of each class of train is validation.

    The order of a class is shuffled by a generator of its own, seeded with the class: nothing but the
    lists decides which images are taken.
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
                f"class {number} has {len(indices)} training image; a validation split takes one of at "
                "least 2; leave out --validation."
            )
        indices.sort(key=lambda index: listed[index].path)
        random.Random(f"{_SEED} {number}").shuffle(indices)
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        for index in indices[:count]:
            splits[index] = "val"
    return splits
