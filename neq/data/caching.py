"""Image caches in memory and on disk; both return exactly what was read."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

# Image i as uint8 [3, H, W].
Read = Callable[[int], torch.Tensor]
_HEADER = struct.Struct("<4sIII")  # format mark, height, width, checksum
_MARK = b"neq1"


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
