"""The space of strategies as a tree of decisions: stage by stage, or in SyncNAS' own order.

A path is the tuple of actions from the root; a leaf is a strategy.

Source: Kang et al., "SyncNAS", LCTES 2023, for `PublishedSpace`.
"""

from __future__ import annotations

from functools import cache
from math import comb
from typing import Protocol

from neq.partition.model import STAGES, SYNCS
from neq.partition.strategies import Sync

Path = tuple[object, ...]


class Space(Protocol):
    """A tree whose leaves are the strategies."""

    def actions(self, path: Path, /) -> tuple[object, ...]:
        """What may follow a path; nothing behind a leaf."""

    def leaves(self, path: Path, /) -> int:
        """How many strategies begin with a path."""

    def path_of(self, sync: Sync, /) -> Path:
        """The path to a strategy."""

    def sync_of(self, path: Path, /) -> Sync:
        """The strategy at a leaf."""


class StageSpace:
    """Seven levels: `n`, `a` or `c` behind one stage after the other."""

    def actions(self, path: Path) -> tuple[object, ...]:
        """The kinds of the next sync."""
        if len(path) == STAGES:
            return ()
        return SYNCS if len(path) < STAGES - 1 else SYNCS[1:]

    def leaves(self, path: Path) -> int:
        """Three for each stage that is open, two for the last."""
        return 1 if len(path) == STAGES else 2 * 3 ** (STAGES - 1 - len(path))

    def path_of(self, sync: Sync) -> Path:
        """The strategy itself."""
        return sync

    def sync_of(self, path: Path) -> Sync:
        """The path itself."""
        return tuple(map(str, path))


class PublishedSpace:
    """The number of syncs, their stages in rising order, then their kinds; the last stage has one always."""

    def actions(self, path: Path) -> tuple[object, ...]:
        """A count, a stage that leaves room for the others, or a kind."""
        if not path:
            return tuple(range(1, STAGES + 1))
        count = _count(path)
        if len(path) < count:  # its stages but the last
            number = len(path)
            first = _stage(path) + 1 if number > 1 else 0
            return tuple(range(first, STAGES - 1 - count + 1 + number))
        return SYNCS[1:] if len(path) < 2 * count else ()

    def leaves(self, path: Path) -> int:
        """The ways to place and to choose what is open."""
        if not path:
            return sum(self.leaves((count,)) for count in range(1, STAGES + 1))
        count, number = _count(path), len(path)
        if number < count:
            above = STAGES - 1 - (_stage(path) + 1 if number > 1 else 0)
            return comb(above, count - number) * 2**count
        return 2 ** (2 * count - number)

    def path_of(self, sync: Sync) -> Path:
        """Its count, stages and kinds."""
        at = [stage for stage, kind in enumerate(sync) if kind != "n"]
        return (len(at), *at[:-1], *(sync[stage] for stage in at))

    def sync_of(self, path: Path) -> Sync:
        """The strategy of a count, stages and kinds."""
        count = _count(path)
        sync = ["n"] * STAGES
        for stage, kind in zip((*path[1:count], STAGES - 1), path[count:], strict=True):
            sync[int(str(stage))] = str(kind)
        return tuple(sync)


def _count(path: Path) -> int:
    return int(str(path[0]))


def _stage(path: Path) -> int:
    return int(str(path[-1]))


@cache
def space(name: str) -> Space:
    """The space of a name: `stage` or `published`."""
    return PublishedSpace() if name == "published" else StageSpace()
