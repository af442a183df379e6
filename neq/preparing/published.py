"""What a published data set is made of: files to fetch, lists to read, and the counts these must give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Listed(NamedTuple):
    """An image as the official lists have it; `path` is relative to the raw folder, with slashes."""

    split: Split
    class_id: int
    class_name: str
    path: str


@dataclass(frozen=True)
class Download:
    """A published file.

    Args:
        name: its name in the raw folder.
        url: where it is published.
        md5: its published checksum; none where none is known.
        unpacks: the folders and files in it that are needed, as they lie in the raw folder afterwards;
            empty: the file itself is needed.
    """

    name: str
    url: str
    md5: str | None = None
    unpacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A published data set, as one of its scripts describes it.

    Args:
        name: its short name.
        downloads: what it is published as.
        counts: the official number of images of each split that it has.
        read: from the raw folder to every image of the official splits.
        options: settings of its own that decide what is built.
        small_side: shrink images to so many pixels on their smaller side.
    """

    name: str
    downloads: tuple[Download, ...]
    counts: Mapping[Split, int]
    read: Callable[[Path], list[Listed]]
    options: Mapping[str, str | int | None] = field(default_factory=dict)
    small_side: int | None = None


def class_folder(number: int, name: str, largest: int) -> str:
    """The folder of a class: its number, so that no two classes share it, and its name for the reader.

    Args:
        number: the official number of the class, from 0 or 1.
        name: the official name; blanks become underscores, signs that a file system may refuse go.
        largest: the largest number of the set, whose width the numbers are padded to, so that the order of
            the names is that of the numbers.
    """
    safe = re.sub(r"[^\w.-]", "", re.sub(r"\s+", "_", name.strip()), flags=re.ASCII)
    return f"{number:0{len(str(largest))}d}" + (f".{safe}" if safe else "")
