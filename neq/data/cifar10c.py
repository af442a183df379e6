"""CIFAR-10-C as published: NAME.npy beside labels.npy, the same 10,000 test photos at five severities."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from neq.data.corruptions import read_corruption
from neq.data.sources import Source, source_of_arrays
from neq.utils.errors import UserError, first_line, unknown_name

# CIFAR-10's, in the order of its labels.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SEVERITIES = 5


def open_cifar10c(root: str | None) -> Source:
    """Raises UserError: the archive holds no photos without a corruption."""
    raise UserError("dataset cifar10c needs a corruption, as --corruption fog:3; without one, take c10")


def open_corrupted(root: str | None, corruption: str) -> Source:
    """The photos under one corruption, all of them test photos, in the order of CIFAR-10's test split.

    Args:
        root: the folder of the files; `~` is expanded.
        corruption: NAME:SEVERITY, NAME the name of a file.

    Raises:
        UserError: a file is missing, damaged, or holds something else.
    """
    if root is None:
        raise UserError("dataset cifar10c needs the folder of its .npy files; give it with --root FOLDER")
    folder = Path(root).expanduser()
    names = sorted(path.stem for path in folder.glob("*.npy") if path.stem != "labels")
    name, severity = read_corruption(corruption)
    if not names:
        raise UserError(f"root {root!r} holds no .npy files of CIFAR-10-C; give the folder of its files")
    if name not in names:
        raise unknown_name("corruption", name, names)
    images, labels = _read(folder / f"{name}.npy"), _read(folder / "labels.npy")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) % _SEVERITIES:
        raise UserError(
            f"file {str(folder / name) + '.npy'!r} is {images.dtype} {list(images.shape)}; "
            f"uint8 [{_SEVERITIES} x photos, height, width, 3] is expected"
        )
    count = len(images) // _SEVERITIES
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),) or not set(labels) <= set(range(10)):
        raise UserError(
            f"file {str(folder / 'labels.npy')!r} is {labels.dtype} {list(labels.shape)}; {len(images)} "
            "numbers from 0 to 9, one an image, are expected"
        )
    at = slice((severity - 1) * count, severity * count)
    pixels, numbers = np.array(images[at]), labels[at].astype(np.int64)
    digest = hashlib.sha256(pixels.data)
    digest.update(numbers.data)
    source = source_of_arrays(CLASSES, {"test": (pixels, numbers)}, digest.hexdigest())
    return replace(source, official={"test": np.arange(count)})


def _read(path: Path) -> np.ndarray:
    """The array in a file; of a large one only what is used is read."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except Exception as error:  # a damaged file raises nearly anything
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"file {str(path)!r} cannot be read as a numpy array ({reason})") from error
