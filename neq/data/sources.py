"""A data set: images by number, their labels, and the official splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from neq.data.decoding import read_image

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Source:
    """A data set before it is split and transformed; it can be pickled for loader processes.

    Args:
        classes: the class names, in the order of the labels.
        labels: int64 [n], each in 0 .. len(classes) - 1.
        image: returns image i as uint8 [3, H, W], or raises UserError if its file cannot be read; a function
            at module level or a `functools.partial` of one.
        official: the published splits, disjoint int64 indices into `labels`; missing splits are made by
            `neq.data.splits`. Without `train`, every image in no other split is a training image.
        fingerprint: identifies this copy of the images; None if there is only one.
        notes: lines for the user about how the data was read.
        files: the file of image i; empty if the images are in memory.
        variant: what `image` does to a file beyond decoding it; files are cached apart for each.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    image: Callable[[int], torch.Tensor]
    official: Mapping[Split, np.ndarray] = field(default_factory=dict)
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    variant: str = ""


def source_of_arrays(
    classes: Sequence[str],
    splits: Mapping[Split, tuple[np.ndarray, np.ndarray]],
    fingerprint: str | None = None,
) -> Source:
    """A data set whose images are held in memory.

    Args:
        classes: the class names.
        splits: the images, uint8 [n, H, W] or [n, H, W, 3], and labels [n] of each published split; if there
            is only `train`, `neq.data.splits` cuts the others from it.
        fingerprint: as in `Source`.
    """
    images, labels = zip(*splits.values(), strict=True)
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    return Source(
        classes=tuple(classes),
        labels=np.concatenate(labels).astype(np.int64),
        image=partial(_pixels, pixels),
        official=_consecutive({name: len(part) for name, (_, part) in splits.items()}),
        fingerprint=fingerprint,
    )


def source_of_files(
    classes: Sequence[str],
    splits: Mapping[Split, Sequence[tuple[str, int]]],
    folder: Path | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """A data set whose images are files, decoded when they are needed.

    Args:
        classes: the class names.
        splits: the files and labels of each published split; if there is only `train`, `neq.data.splits` cuts
            the others from it.
        folder: that holds the files, for a fingerprint of their relative paths and sizes, which survives
            moving the folder. None: no fingerprint.
        notes: as in `Source`.
    """
    listed = [item for part in splits.values() for item in part]
    files = tuple(file for file, _ in listed)
    return Source(
        classes=tuple(classes),
        labels=np.array([label for _, label in listed], dtype=np.int64),
        image=partial(_decoded, files),
        official=_consecutive({name: len(part) for name, part in splits.items()}),
        fingerprint=None if folder is None else _fingerprint(folder, files),
        notes=notes,
        files=files,
    )


def without(source: Source, left_out: Sequence[int]) -> Source:
    """The data set without some images, which its fingerprint accounts for.

    Args:
        source: the data set.
        left_out: the numbers of these images; at least one.
    """
    kept = np.setdiff1d(np.arange(len(source.labels)), left_out)
    names = [source.files[index] if source.files else str(index) for index in sorted(left_out)]
    shared = os.path.commonpath(source.files) if source.files else ""
    digest = hashlib.sha256(repr(source.fingerprint).encode())
    for name in names:
        relative = os.path.relpath(name, shared) if shared else name
        digest.update(f"\0{relative}".encode("utf-8", "surrogateescape"))
    return replace(
        source,
        labels=source.labels[kept],
        image=partial(_renumbered, source.image, kept),
        official={
            split: np.searchsorted(kept, np.intersect1d(part, kept))
            for split, part in source.official.items()
        },
        fingerprint=digest.hexdigest(),
        files=tuple(source.files[index] for index in kept) if source.files else (),
    )


def file_size(file: str) -> int:
    """Bytes of a file; -1 if it is missing."""
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def _consecutive(sizes: Mapping[Split, int]) -> dict[Split, np.ndarray]:
    """Indices of splits that lie one after another; empty if there is only one."""
    ends = np.cumsum(list(sizes.values()))
    parts = {name: np.arange(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}
    return parts if len(parts) > 1 else {}


def _fingerprint(folder: Path, files: Sequence[str]) -> str:
    """sha256 over the relative paths, sorted, and the file sizes."""
    digest = hashlib.sha256()
    named = sorted((Path(os.path.relpath(file, folder)).as_posix(), file_size(file)) for file in files)
    for name, size in named:
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _decoded(files: tuple[str, ...], index: int) -> torch.Tensor:
    """Image `index` as uint8 [3, H, W]."""
    return read_image(files[index])


def _pixels(pixels: np.ndarray, index: int) -> torch.Tensor:
    """Image `index` of uint8 [n, H, W] or [n, H, W, 3] as uint8 [3, H, W]."""
    image = torch.from_numpy(pixels[index])
    return image.expand(3, -1, -1) if image.ndim == 2 else image.permute(2, 0, 1)


def _renumbered(image: Callable[[int], torch.Tensor], kept: np.ndarray, index: int) -> torch.Tensor:
    return image(int(kept[index]))
