"""A numpy archive with images and labels: `--dataset npz:FILE`.

Arrays `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test` and optionally `x_val`, `y_val`: x uint8
[n, H, W] or [n, H, W, C] with C = 1 or 3, y integers [n]. `classes` may name the classes; without it they are
the numbers that occur. Nothing in the file is unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil

from neq.data.sources import Source, Split, source_of_arrays
from neq.utils.errors import UserError, shown

_KEYS: dict[Split, tuple[str, str]] = {
    "train": ("x_train", "y_train"),
    "validation": ("x_val", "y_val"),
    "test": ("x_test", "y_test"),
}
_ALLOWED = "allowed: x and y, or x_train, y_train, x_test, y_test (and x_val, y_val), and classes"


def open_npz(root: str | None) -> Source:
    """Read a numpy archive; its fingerprint is a hash of the arrays.

    Args:
        root: the file; `~` is expanded.

    Raises:
        UserError: the file is missing or damaged, lacks arrays, or their shapes disagree.
    """
    if root is None:
        raise UserError("dataset npz needs a file; give it with --dataset npz:FILE.")
    path = Path(root).expanduser()
    arrays = _read(path)
    splits = {}
    for split, (x, y) in _names(arrays, path).items():
        splits[split] = (_images(arrays, x, path), _labels(arrays, y, len(arrays[x]), path))
    if len({images.shape[1:] for images, _ in splits.values()}) > 1:
        raise UserError(f"file {str(path)!r} has images of several shapes in its splits; give all one shape.")
    names, numbers = _classes(arrays, splits, path)
    numbered = {
        split: (images, np.searchsorted(numbers, labels)) for split, (images, labels) in splits.items()
    }
    return source_of_arrays(names, numbered, _fingerprint(names, numbered))


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file that neq reads."""
    wanted = {"x", "y", "classes", *(key for pair in _KEYS.values() for key in pair)}
    try:
        # Opened here, as numpy leaves a damaged file open.
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, not several as np.savez writes")
            _check_room(file, wanted)
            # A member that is not an array is returned as bytes.
            return {key: np.asarray(file[key]) for key in file.files if key in wanted}
    except Exception as error:  # a damaged archive raises nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"file {str(path)!r} cannot be read as a numpy archive ({reason}).") from error


def _check_room(file: np.lib.npyio.NpzFile, wanted: set[str]) -> None:
    """Refuse an archive that unpacks to more than the free memory, as a small file may."""
    assert file.zip is not None, "it is open"
    parts = [part for part in file.zip.infolist() if part.filename.removesuffix(".npy") in wanted]
    needed = sum(part.file_size for part in parts)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(f"its arrays take {needed:,} bytes, and {free:,} bytes of memory are free")


def _names(arrays: Mapping[str, np.ndarray], path: Path) -> dict[Split, tuple[str, str]]:
    """Split -> names of its arrays."""
    if "x" in arrays and "y" in arrays:
        return {"train": ("x", "y")}
    names = {split: pair for split, pair in _KEYS.items() if all(key in arrays for key in pair)}
    if "train" not in names or "test" not in names:
        raise UserError(f"file {str(path)!r} has the arrays {', '.join(arrays) or 'none'}; {_ALLOWED}.")
    return names


def _images(arrays: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    """uint8 [n, H, W] or [n, H, W, 3]."""
    images = arrays[name]
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    is_images = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not is_images or 0 in images.shape:
        raise UserError(
            f"file {str(path)!r}: {name} is {arrays[name].dtype} {list(arrays[name].shape)}; "
            "uint8 [n, height, width] or [n, height, width, 1 or 3] is allowed."
        )
    return images


def _labels(arrays: Mapping[str, np.ndarray], name: str, count: int, path: Path) -> np.ndarray:
    """int64 [count]."""
    labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise UserError(
            f"file {str(path)!r}: {name} is {labels.dtype} {list(labels.shape)}; "
            f"whole numbers [{count}], one an image, are allowed."
        )
    return labels.astype(np.int64)


def _classes(
    arrays: Mapping[str, np.ndarray], splits: Mapping[Split, tuple[np.ndarray, np.ndarray]], path: Path
) -> tuple[list[str], np.ndarray]:
    """The class names, and the label of each."""
    found = np.unique(np.concatenate([labels for _, labels in splits.values()]))
    if "classes" not in arrays:
        return [str(number) for number in found], found
    names = arrays["classes"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise UserError(
            f"file {str(path)!r}: classes is {names.dtype} {list(names.shape)}; give a list of names."
        )
    outside = [number for number in found if not 0 <= number < len(names)]
    if outside:
        raise UserError(
            f"file {str(path)!r} has label {outside[0]}, but names {len(names)} classes; "
            f"labels from 0 to {len(names) - 1} are allowed."
        )
    return [shown(name) if isinstance(name, bytes) else str(name) for name in names.tolist()], np.arange(
        len(names)
    )


def _fingerprint(names: list[str], splits: Mapping[Split, tuple[np.ndarray, np.ndarray]]) -> str:
    """sha256 over class names, images and labels."""
    digest = hashlib.sha256(repr(names).encode())
    for split, arrays in splits.items():
        for array in arrays:
            digest.update(f"{split}{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
