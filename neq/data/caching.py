"""Image caches in memory and on disk, and the plan of a run's cache: which images are kept, and where.

Training images are kept as decoded, before their augmentation, and evaluation images after their resize. Both
are exactly what is computed without a cache, so a cache changes no batch. Images beyond `cache_gib` are
computed each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torch
import torchvision

from neq.config.paths import cache_folder
from neq.config.schema import DataProvider
from neq.data.disk_memo import file_stamp
from neq.data.sources import Source
from neq.utils.images import open_image

# Image i as uint8 [3, H, W].
Read = Callable[[int], torch.Tensor]
_HEADER = struct.Struct("<4sIII")  # format mark, height, width, checksum
_MARK = b"neq1"
# `cache: auto` keeps a data set below this size in memory.
_AUTO_BYTES = 256_000_000
_GIB = 2**30
_SAMPLED = 64
_ABANDONED_S = 3600.0


class MemoryCache:
    """Images in memory; filled before loader processes start, which then share it.

    Args:
        read: returns an image.
        numbers: images to keep, as many as fit.
        limit: in bytes.
    """

    def __init__(self, read: Read, numbers: Iterable[int], limit: int) -> None:
        self._read = read
        self._kept: dict[int, np.ndarray] = {}
        self.size = 0
        for number in numbers:
            image = _pixels(read(number))
            if self.size + image.nbytes > limit:
                break
            self._kept[number] = image
            self.size += image.nbytes

    def __call__(self, number: int) -> torch.Tensor:
        """Image `number`, uint8 [3, H, W]."""
        image = self._kept.get(number)
        return self._read(number) if image is None else _tensor(image)


@dataclass
class DiskQuota:
    """Bytes that this process may still write to the disk."""

    left: int


@dataclass(frozen=True)
class DiskCache:
    """Images on disk, one file each, written when an image is first read; processes may share them.

    Args:
        read: returns an image.
        folder: of the files.
        quota: of this process, shared by its caches.
    """

    read: Read
    folder: Path
    quota: DiskQuota

    def __call__(self, number: int) -> torch.Tensor:
        """Image `number`, uint8 [3, H, W]."""
        path = self.folder / str(number)
        image = _load(path)
        if image is not None:
            return _tensor(image)
        read = self.read(number)
        self._save(path, _pixels(read))
        return read

    def _save(self, path: Path, image: np.ndarray) -> None:
        size = _HEADER.size + image.nbytes
        if size > self.quota.left:
            return
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(_HEADER.pack(_MARK, *image.shape[:2], zlib.crc32(image.data)))
                file.write(image.data)
            os.replace(temporary, path)
            self.quota.left -= size
        except OSError:  # a full or read-only disk only makes loading slower
            self.quota.left = 0
            with contextlib.suppress(OSError):
                temporary.unlink()


def _pixels(image: torch.Tensor) -> np.ndarray:
    """uint8 [3, H, W] as contiguous [H, W, 3], the memory order of decoded images."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _load(path: Path) -> np.ndarray | None:
    """The image in a file; None if the file is missing or incomplete."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    if len(content) < _HEADER.size:
        return None
    mark, height, width, checksum = _HEADER.unpack(content[: _HEADER.size].tobytes())
    pixels = content[_HEADER.size :]
    # The file was not fsynced: after a power cut it may hold anything.
    if mark != _MARK or len(pixels) != 3 * height * width or zlib.crc32(pixels.data) != checksum:
        return None
    return pixels.reshape(height, width, 3)


@dataclass(frozen=True)
class CachePlan:
    """What a run caches.

    Args:
        kind: where images are kept.
        decoded: int64 [n], images that are kept as decoded.
        resized: int64 [n], images that are kept after the resize of evaluation.
        limit: in bytes, of all cached images.
        expected: estimated bytes of these images.
        notes: lines for the user.
    """

    kind: Literal["none", "memory", "disk"]
    decoded: np.ndarray
    resized: np.ndarray
    limit: int
    expected: int
    notes: tuple[str, ...] = ()

    def build(self, source: Source, resized: Read, name: str, n_worker: int) -> tuple[Read, Read]:
        """Cached readers of decoded images and of images resized for evaluation.

        Args:
            source: the data set.
            resized: returns an image resized for evaluation.
            name: of the resize; equal names mean equal results.
            n_worker: number of loader processes.
        """
        if self.kind == "memory":
            evaluated = MemoryCache(resized, self.resized, self.limit)
            return MemoryCache(source.image, self.decoded, self.limit - evaluated.size), evaluated
        if self.kind == "disk":
            folder, free = _disk_folder(source, self.limit, self.expected)
            quota = DiskQuota(free // (n_worker + 1))  # an equal share for this and each loader process
            decoded = DiskCache(source.image, folder / "decoded", quota)
            return decoded, DiskCache(resized, folder / name, quota)
        return source.image, resized


def plan_cache(
    settings: DataProvider, source: Source, parts: Mapping[str, np.ndarray], augmented: bool
) -> CachePlan:
    """Decide what to cache; a data set in memory is neither cached on disk nor as decoded.

    Args:
        settings: `cache`, `cache_gib` and `image_size` are read.
        source: the data set.
        parts: the images of each split.
        augmented: whether training images are augmented; otherwise they are read like evaluation images.
    """
    assert settings.image_size is not None
    evaluated = np.concatenate([part for name, part in parts.items() if name != "train" or not augmented])
    decoded = parts["train"] if augmented and source.files else np.arange(0)
    expected = 3 * settings.image_size**2 * len(evaluated) + _decoded_bytes(source.files, len(decoded))
    limit, kind = int(settings.cache_gib * _GIB), settings.cache
    if kind == "auto":
        kind = "memory" if expected <= min(limit, _AUTO_BYTES) else "none"
    notes: tuple[str, ...] = ()
    if kind == "disk" and not source.files:
        kind, notes = "none", ("cache disk has no effect: this data set is held in memory as a whole",)
    if kind != "none" and expected > limit:
        sizes = f"{expected / _GIB:.1f} GiB, of which cache_gib keeps {settings.cache_gib:g}"
        notes = (f"cache {kind}: the images take about {sizes}",)
    return CachePlan(kind, decoded, evaluated, limit, expected, notes)


def _decoded_bytes(files: Sequence[str], count: int) -> int:
    """Estimated bytes of decoded images, from the headers of a sample.

    Args:
        files: of the data set; if empty, the images are in memory and the estimate is 0.
        count: number of images.
    """
    if not files:
        return 0
    sizes = []
    for file in files[:: max(1, len(files) // _SAMPLED)]:
        with contextlib.suppress(Exception), open_image(file) as image:  # only an estimate
            sizes.append(3 * image.width * image.height)
    return round(count * sum(sizes) / max(1, len(sizes)))


def _disk_folder(source: Source, limit: int, expected: int) -> tuple[Path, int]:
    """The folder of a data set's cached images, and the bytes that may be added to it.

    The least recently used data sets are removed until this one fits.

    Args:
        source: the data set, of files.
        limit: bytes of all cached data sets.
        expected: bytes of this one.
    """
    base = cache_folder() / "decoded"
    variant = (source.variant,) if source.variant else ()
    own = base / file_stamp(source.files, PIL.__version__, torchvision.__version__, *variant)
    with contextlib.suppress(OSError):
        own.mkdir(parents=True, exist_ok=True)
        os.utime(own)
    others: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):  # what another process removes meanwhile takes no room
        others = sorted(
            (path.stat().st_mtime, folder_size(path), path) for path in base.iterdir() if path != own
        )
    while others and sum(size for _, size, _ in others) + max(expected, folder_size(own)) > limit:
        shutil.rmtree(others.pop(0)[2], ignore_errors=True)
    return own, max(0, limit - sum(size for _, size, _ in others) - folder_size(own))


def folder_size(folder: Path) -> int:
    """Bytes of a tree; incomplete files of killed processes are removed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(OSError):
                found = path.stat()
                if name.endswith(".tmp") and time.time() - found.st_mtime > _ABANDONED_S:
                    path.unlink()
                else:
                    total += found.st_size
    return total
