"""What a published data set consists of: files, official lists, and the numbers of images these must have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from neq.data.published.download import Download
from neq.data.sources import Split
from neq.utils.errors import UserError

SplitFolder = Literal["train", "val", "test"]
# The folder of each split on disk, in the order in which splits are listed.
SPLIT_FOLDERS: dict[Split, SplitFolder] = {"train": "train", "validation": "val", "test": "test"}


class ListedImage(NamedTuple):
    """An image in the official lists; `path` is relative to the raw folder, with slashes."""

    split: Split
    class_id: int
    class_name: str
    path: str


@dataclass(frozen=True)
class PublishedSet:
    """A published data set.

    Args:
        name: its name in `--dataset`.
        script: its script in train_test_split/, and its name in the mark of a prepared split.
        page: where it is published.
        downloads: the files it is published as.
        counts: the official number of images of each split.
        read: reads the official lists: raw folder -> every image of the splits.
        folder: its raw folder below the data folder.
        display_name: from a class name of the lists to the one that a run records.
        options: its own settings that decide what is prepared.
        small_side: shrink prepared images whose smaller side has more pixels than this; None: keep all sizes.
    """

    name: str
    script: str
    page: str
    downloads: tuple[Download, ...]
    counts: Mapping[Split, int]
    read: Callable[[Path], list[ListedImage]]
    folder: str = ""
    display_name: Callable[[str], str] = str
    options: Mapping[str, str | int | None] = field(default_factory=dict)
    small_side: int | None = None


def check_lists(listed: Sequence[ListedImage]) -> None:
    """Check that the lists agree with themselves.

    Raises:
        UserError: no image, an image listed twice, a class with two names, or a path that leads out of the
            raw folder.
    """
    if not listed:
        raise UserError("the lists name no image; unpack the published archive again")
    splits: dict[str, Split] = {}
    names: dict[int, str] = {}
    for image in listed:
        if image.path.startswith("/") or ".." in image.path.split("/"):
            raise UserError(
                f"the lists name {image.path!r}, which leads out of the folder; they are not the published "
                "ones; unpack the archive again"
            )
        if image.path in splits:
            raise UserError(
                f"the lists name image {image.path!r} twice, in {splits[image.path]} and in {image.split}; "
                "no image may be in two splits; unpack the published archive again"
            )
        splits[image.path] = image.split
        name = names.setdefault(image.class_id, image.class_name)
        if name != image.class_name:
            raise UserError(
                f"the lists call class {image.class_id} both {name!r} and {image.class_name!r}; each class "
                "needs one name; unpack the published archive again"
            )


def count_deviations(listed: Iterable[ListedImage], official: Mapping[Split, int]) -> list[str]:
    """How the numbers of images deviate from the official ones: one sentence a split, empty if they agree."""
    found = Counter(image.split for image in listed)
    return [
        f"{folder} has {found[split]:,} images, officially {official.get(split, 0):,}"
        for split, folder in SPLIT_FOLDERS.items()
        if found[split] != official.get(split, 0)
    ]
