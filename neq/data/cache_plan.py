"""The plan of a run's image cache: which images are kept, and where.

Training images are kept as decoded, before their augmentation, and evaluation images after their resize. Both
are exactly what is computed without a cache, so a cache changes no batch. Images beyond `cache_gib` are
computed each time.
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
from neq.data.caching import DiskCache, DiskQuota, MemoryCache, Read
from neq.data.disk_memo import file_stamp
from neq.data.sources import Source
from neq.utils.images import open_image

# `cache: auto` keeps a data set below this size in memory.
_AUTO_BYTES = 256_000_000
_GIB = 2**30
_SAMPLED = 64
_ABANDONED_S = 3600.0


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
            folder, free = _disk_folder(source.files, self.limit, self.expected)
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
    if kind == "disk" and not source.files:
        notes = ("cache disk has no effect: this data set is held in memory as a whole",)
        return CachePlan("none", decoded, evaluated, limit, expected, notes)
    if kind == "none" or expected <= limit:
        return CachePlan(kind, decoded, evaluated, limit, expected)
    sizes = f"{expected / _GIB:.1f} GiB, of which cache_gib keeps {settings.cache_gib:g}"
    return CachePlan(
        kind, decoded, evaluated, limit, expected, (f"cache {kind}: the images take about {sizes}",)
    )


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


def _disk_folder(files: Sequence[str], limit: int, expected: int) -> tuple[Path, int]:
    """The folder of a data set's cached images, and the bytes that may be added to it.

    The least recently used data sets are removed until this one fits.

    Args:
        files: of the data set.
        limit: bytes of all cached data sets.
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
