"""Detection of test images whose file is a training image too."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from neq.data.disk_memo import file_stamp, memoize
from neq.data.sources import Source, file_size

_END_BYTES = 4096


def copies_note(source: Source, parts: Mapping[str, np.ndarray]) -> str | None:
    """One line about test images that are training images too; None if there are none.

    Files are compared byte by byte; the result is kept in the cache folder until a file changes.

    Args:
        source: the data set; images in memory are not compared.
        parts: the images of each split.
    """
    if not source.files:
        return None
    files, trained, tested = source.files, set(parts["train"]), set(parts["test"])
    pairs = [
        (number, next(iter(trained.intersection(group))))
        for group in memoize("copies", file_stamp(files), lambda: _copies(files))
        if not trained.isdisjoint(group)
        for number in group
        if number in tested
    ]
    if not pairs:
        return None
    test, train = pairs[0]
    return (
        f"{len(pairs)} of {len(tested)} test images are training images too, which makes the test accuracy "
        f"too high: {files[test]} is the same file as {files[train]}" + (", ..." if len(pairs) > 1 else "")
    )


def _copies(files: Sequence[str]) -> list[list[int]]:
    """Groups of the numbers of files with the same content."""
    groups = [list(range(len(files)))]
    keys: list[Callable[[str], object]] = [file_size, _end, _content]  # each reads more, of fewer files
    for key in keys:
        groups = [same for group in groups for same in _same(files, group, key)]
    return groups


def _same(files: Sequence[str], numbers: Sequence[int], key: Callable[[str], object]) -> list[list[int]]:
    """Those that share their key with another."""
    groups: dict[object, list[int]] = defaultdict(list)
    for number in numbers:
        groups[key(files[number])].append(number)
    return [group for group in groups.values() if len(group) > 1]


def _end(file: str) -> bytes:
    with open(file, "rb") as content:
        content.seek(max(0, os.path.getsize(file) - _END_BYTES))
        return content.read()


def _content(file: str) -> bytes:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
