"""Batches of what a fixed function makes of images, in place of the images: kept maps are not computed again.

A convolution rounds an image's map alike in all batches of one size, whatever the other images are and in
whichever place it lies; in batches of another size it may not. So a map that is missing is always computed in
as many images as the batch that asks for it is passed through in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from neq.data.loading import Batch, Key
from neq.data.map_format import MapFormat
from neq.data.map_stores import MapKey, MapStore


@dataclass(frozen=True)
class Maps:
    """A fixed function of images, and its results as far as they are kept.

    Args:
        compute: images float32 [B, 3, S, S] on the device -> maps [B, ...].
        format: of the maps.
        store: keeps them.
        digest: of all that `compute` depends on, and of the images' pixels.
        device: of the maps.
        parts: of equal sizes, in which each batch is passed through.
    """

    compute: Callable[[Tensor], Tensor]
    format: MapFormat
    store: MapStore
    digest: str
    device: torch.device
    parts: int = 1

    def key(self, batch: Sequence[Key], key: Key) -> MapKey:
        """What an image's map is kept by, in a batch."""
        return (len(batch) // self.parts, *key)


# Returns images, normalized on the device, of each batch of keys; or of one batch at any time.
LoadPass = Callable[[list[list[Key]]], Iterable[Batch]]
LoadNow = Callable[[list[Key]], Batch]


def mapped_batches(
    maps: Maps, plan: Sequence[list[Key]], load: LoadPass, load_now: LoadNow
) -> Iterator[Tensor]:
    """The maps of each batch of keys, [B, ...].

    Args:
        maps: the function.
        plan: the batches; those that lie side by side share computations.
        load: loads the images of a whole pass; called once, and not where all maps are kept.
        load_now: loads the images of one batch, without disturbing the pass.
    """
    known = maps.store.known(maps.digest)
    chunks = [
        chunk
        for size, batches in groupby(plan, key=len)
        for chunk in _chunks(
            [key for batch in batches for key in batch if maps.key(batch, key) not in known],
            size // maps.parts,
        )
    ]
    computed = _Computed(maps, plan, chunks, load, load_now)
    for batch in plan:
        rows = torch.stack([computed.row(maps.key(batch, key)) for key in batch])
        yield maps.format.maps(rows).to(maps.device, non_blocking=True)


@dataclass(frozen=True)
class _Chunk:
    """Images that are computed together: `size` of them, some more than once where there are fewer."""

    size: int
    keys: list[Key]


def _chunks(missing: list[Key], size: int) -> Iterator[_Chunk]:
    """Missing keys, each once and in order, as batches of one size."""
    left = list(dict.fromkeys(missing))
    for start in range(0, len(left), size):
        yield _Chunk(size, left[start : start + size])


class _Computed:
    """The rows of a pass: those that are kept, and those that are computed in it.

    Args:
        maps: the function.
        plan: the batches of the pass.
        chunks: what is missing, in the order in which it is asked for.
        load, load_now: as of `mapped_batches`.
    """

    def __init__(
        self,
        maps: Maps,
        plan: Sequence[list[Key]],
        chunks: Sequence[_Chunk],
        load: LoadPass,
        load_now: LoadNow,
    ) -> None:
        self._maps, self._load_now = maps, load_now
        self._held: dict[MapKey, Tensor] = {}  # what the store has no room for, until it is used
        self._uses = Counter(maps.key(batch, key) for batch in plan for key in batch)
        self._coming = {(chunk.size, *key) for chunk in chunks for key in chunk.keys}
        loaded = load([chunk.keys for chunk in chunks]) if chunks else ()
        self._chunks = zip(chunks, loaded, strict=True)

    def row(self, key: MapKey) -> Tensor:
        """The row of a map."""
        maps, row_bytes = self._maps, self._maps.format.row_bytes
        while key in self._coming:
            self._add(*next(self._chunks))
        self._uses[key] -= 1
        found = self._held.get(key) if self._uses[key] else self._held.pop(key, None)
        if found is None:
            found = maps.store.find(maps.digest, key)
        if found is None or len(found) != row_bytes:
            size, view, number = key
            chunk = _Chunk(size, [(view, number)])
            found = self._add(chunk, self._load_now(chunk.keys))[0]
        return found

    def _add(self, chunk: _Chunk, batch: Batch) -> Tensor:
        """Computes the maps of a chunk and keeps them; their rows [n, row_bytes]."""
        maps, images = self._maps, batch[0]
        times = -(-chunk.size // len(images))
        rows = maps.format.rows(maps.compute(images.repeat(times, 1, 1, 1)[: chunk.size]))[: len(images)]
        for key, row in zip(chunk.keys, rows, strict=True):
            of = (chunk.size, *key)
            self._coming.discard(of)
            if not maps.store.keep(maps.digest, of, row) and self._uses[of]:
                self._held[of] = row
        return rows
