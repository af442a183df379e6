"""Where the maps of images are kept: in memory, or on disk; up to a number of bytes.

A store holds rows of bytes by what they were computed by (a digest) and for (a key). Rows of digests that
were used least recently make room for others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from neq.data.caching import folder_size

log = logging.getLogger("neq")

# Of the batch that it was computed in the images, of the image the view (none: as for evaluation) and the
# number. Convolutions may round otherwise in batches of another size.
MapKey = tuple[int, int | None, int]
_CHECKSUM_BYTES = 4


class MapStore(Protocol):
    """Keeps rows; one that it lost, or had no room for, is computed again.

    Attributes:
        limit: bytes of all rows.
    """

    limit: int

    def use(self, digest: str, expected: int) -> None:
        """Makes room for the rows of a digest, which the two used last keep theirs for.

        Args:
            digest: whose rows are kept and found from here on.
            expected: bytes of all of them.
        """

    def known(self, digest: str) -> set[MapKey]:
        """The keys whose rows are kept."""

    def find(self, digest: str, key: MapKey) -> Tensor | None:
        """A row, uint8 [n]; None where there is none, or it is damaged."""

    def keep(self, digest: str, key: MapKey, row: Tensor) -> bool:
        """Keeps a row; whether there was room for it."""


class MemoryMaps:
    """Rows in the memory of this process.

    Args:
        limit: in bytes, of all rows.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self._size = limit, 0
        self._rows: dict[str, dict[MapKey, Tensor]] = {}  # the digest used last comes last

    def use(self, digest: str, expected: int) -> None:
        """Makes room for the rows of a digest."""
        self._rows[digest] = own = self._rows.pop(digest, {})
        wanted = max(0, expected - _bytes(own))
        for other in list(self._rows)[:-2]:
            if self._size + wanted > self.limit:
                self._size -= _bytes(self._rows.pop(other))

    def known(self, digest: str) -> set[MapKey]:
        """The keys whose rows are kept."""
        return set(self._rows.get(digest, ()))

    def find(self, digest: str, key: MapKey) -> Tensor | None:
        """A row, uint8 [n]."""
        return self._rows.get(digest, {}).get(key)

    def keep(self, digest: str, key: MapKey, row: Tensor) -> bool:
        """Keeps a row; whether there was room for it."""
        own = self._rows.setdefault(digest, {})
        if key in own:
            return True
        if self._size + row.nbytes > self.limit:
            return False
        own[key] = row.clone()
        self._size += row.nbytes
        return True


class DiskMaps:
    """Rows on disk, one file each, which processes share.

    Args:
        folder: of all digests.
        limit: in bytes, of all files in it.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self.limit = folder, limit
        self._left, self._used = limit, list[str]()

    def use(self, digest: str, expected: int) -> None:
        """Makes room for the rows of a digest."""
        self._used = [*(other for other in self._used if other != digest), digest][-2:]
        with contextlib.suppress(OSError):
            (self._folder / digest).mkdir(parents=True, exist_ok=True)
            os.utime(self._folder / digest)
        found: list[tuple[float, Path, int]] = []
        with contextlib.suppress(OSError):  # what another process removes meanwhile takes no room
            found = sorted((path.stat().st_mtime, path, folder_size(path)) for path in self._folder.iterdir())
        taken = sum(size for *_, size in found)
        wanted = max(0, expected - sum(size for _, path, size in found if path.name == digest))
        for _, path, size in found:
            if taken + wanted > self.limit and path.name not in self._used:
                shutil.rmtree(path, ignore_errors=True)
                taken -= size
        self._left = max(0, self.limit - taken)

    def known(self, digest: str) -> set[MapKey]:
        """The keys whose files are there."""
        found: set[MapKey] = set()
        with contextlib.suppress(OSError):
            for part in (self._folder / digest).iterdir():
                size, _, view = part.name.partition("-")
                numbers = [int(name) for name in os.listdir(part) if name.isdecimal()]
                if size.isdecimal() and (view == "none" or view.isdecimal()):
                    of = int(size), None if view == "none" else int(view)
                    found |= {(*of, number) for number in numbers}
        return found

    def find(self, digest: str, key: MapKey) -> Tensor | None:
        """A row, uint8 [n]; None where there is none, or it is damaged."""
        path = self._path(digest, key)
        try:
            content = np.fromfile(path, dtype=np.uint8)
        except OSError:
            return None
        row = content[_CHECKSUM_BYTES:]
        if content[:_CHECKSUM_BYTES].tobytes() != _checksum(row):
            log.warning("the kept map %s is damaged: it is computed again", path)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return torch.from_numpy(row)

    def keep(self, digest: str, key: MapKey, row: Tensor) -> bool:
        """Writes a row; whether there was room for it."""
        path, values = self._path(digest, key), row.numpy()
        size = _CHECKSUM_BYTES + row.nbytes
        if size > self._left:
            return False
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(_checksum(values))
                file.write(values.data)
            os.replace(temporary, path)
        except OSError:  # a full or read-only disk only makes training slower
            self._left = 0
            with contextlib.suppress(OSError):
                temporary.unlink()
            return False
        self._left -= size
        return True

    def _path(self, digest: str, key: MapKey) -> Path:
        size, view, number = key
        return self._folder / digest / f"{size}-{'none' if view is None else view}" / str(number)


def _bytes(rows: dict[MapKey, Tensor]) -> int:
    return sum(row.nbytes for row in rows.values())


def _checksum(values: np.ndarray) -> bytes:
    # Files are not fsynced: after a power cut they may hold anything.
    return zlib.crc32(values.data).to_bytes(_CHECKSUM_BYTES, "little")
