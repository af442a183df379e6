"""What of a data set is cached, and where.

Two things are kept: training images as decoded, before their augmentation, and evaluated images after their
resize. Both are exactly what is computed without a cache, so a cache changes no batch. What does not fit
under `cache_gib` is computed each time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import torchvision

from neq.config.paths import cache_folder
from neq.config.schema import DataProvider
from neq.data.caching import DiskCache, MemoryCache, Read, Room
from neq.data.disk_memo import file_stamp
from neq.data.sources import Source
from neq.utils.images import open_image

# A set that is smaller than this is kept in memory without being asked.
_AUTO_BYTES = 256_000_000
_GIB = 2**30
_SAMPLED = 64
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class CachePlan:
    """What a run caches.

    Args:
        kind: where.
        decoded: numbers of the images that are kept as decoded.
        resized: numbers of the images that are kept as evaluated.
        limit: bytes of all.
        expected: about how many bytes they are.
        notes: what the user should know.
    """

    kind: Literal["none", "memory", "disk"]
    decoded: np.ndarray
    resized: np.ndarray
    limit: int
    expected: int
    notes: tuple[str, ...] = ()

    def build(self, source: Source, resized: Read, name: str, n_worker: int) -> tuple[Read, Read]:
        """How images are read from now on: as decoded, and as evaluated.

        Args:
            source: the data set.
            resized: gives an image as evaluated.
            name: of the resize: the same name, the same result.
            n_worker: loader processes.
        """
        if self.kind == "memory":
            evaluated = MemoryCache(resized, self.resized, self.limit)
            return MemoryCache(source.image, self.decoded, self.limit - evaluated.size), evaluated
        if self.kind == "disk":
            folder, free = _disk_folder(source.files, self.limit, self.expected)
            room = Room(free // (n_worker + 1))  # loader processes and this one each get a share
            decoded = DiskCache(source.image, folder / "decoded", room)
            return decoded, DiskCache(resized, folder / name, room)
        return source.image, resized


def plan_cache(
    settings: DataProvider, source: Source, parts: Mapping[str, np.ndarray], augmented: bool
) -> CachePlan:
    """What to cache; images that a data set holds in memory are not cached on disk, nor as decoded.

    Args:
        settings: `cache`, `cache_gib` and `image_size` are read.
        source: the data set.
        parts: the images of each split.
        augmented: whether training images are; else they are read as evaluated ones are.
    """
    assert settings.image_size is not None
    evaluated = np.concatenate([part for name, part in parts.items() if name != "train" or not augmented])
    decoded = parts["train"] if augmented and source.files else np.arange(0)
    expected = 3 * settings.image_size**2 * len(evaluated) + _decoded_bytes(source.files, len(decoded))
    limit, kind = int(settings.cache_gib * _GIB), settings.cache
    if kind == "auto":
        kind = "memory" if expected <= min(limit, _AUTO_BYTES) else "none"
    if kind == "disk" and not source.files:
        notes = ("cache disk keeps nothing: this data set is held in memory as a whole",)
        return CachePlan("none", decoded, evaluated, limit, expected, notes)
    if kind == "none" or expected <= limit:
        return CachePlan(kind, decoded, evaluated, limit, expected)
    sizes = f"{expected / _GIB:.1f} GiB, of which cache_gib keeps {settings.cache_gib:g}"
    return CachePlan(
        kind, decoded, evaluated, limit, expected, (f"cache {kind}: the images take about {sizes}",)
    )


def _decoded_bytes(files: Sequence[str], count: int) -> int:
    """About how many bytes some images of a set are, decoded; from the headers of a few.

    Args:
        files: the files of the set; an empty list is 0 bytes, as images in memory need no decoding.
        count: images.
    """
    if not files:
        return 0
    sizes = []
    for file in files[:: max(1, len(files) // _SAMPLED)]:
        with contextlib.suppress(Exception), open_image(file) as image:  # nothing but an estimate
            sizes.append(3 * image.width * image.height)
    return round(count * sum(sizes) / max(1, len(sizes)))


def _disk_folder(files: Sequence[str], limit: int, expected: int) -> tuple[Path, int]:
    """The folder of a set's cached images, and the bytes that may be added to it.

    Sets that were not used for longest are removed until this one fits.

    Args:
        files: the files of the set.
        limit: bytes of all cached sets.
        expected: bytes of this one.
    """
    base = cache_folder() / "decoded"
    own = base / file_stamp(files, PIL.__version__, torchvision.__version__)
    with contextlib.suppress(OSError):
        own.mkdir(parents=True, exist_ok=True)
        os.utime(own)
    others = sorted((path for path in _folders(base) if path != own), key=_changed)
    sizes = {path: _size(path) for path in others}
    while others and sum(sizes.values()) + max(expected, _size(own)) > limit:
        oldest = others.pop(0)
        shutil.rmtree(oldest, ignore_errors=True)
        del sizes[oldest]
    return own, max(0, limit - sum(sizes.values()) - _size(own))


def _folders(base: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in base.iterdir() if path.is_dir()]
    return []


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    """Bytes of a tree; files that a killed process left half written are removed."""
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
