"""Data kept open for the next cell of a sweep, which often has the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from neq.config.catalog import DatasetEntry
from neq.config.schema import DataProvider
from neq.data import Data, open_data

MOST = 4


class OpenData:
    """Opens data once for all cells that have the same settings and seed.

    Loader processes end with every cell; what was read and decoded stays.

    Args:
        most: data sets that are kept, the latest used.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, Data] = OrderedDict()

    @contextmanager
    def open(
        self,
        settings: DataProvider,
        entry: DatasetEntry,
        seed: int,
        device: torch.device,
        rank: int = 0,
        count: int = 1,
    ) -> Iterator[Data]:
        """The data, with the arguments of `open_data`."""
        key = f"{settings.model_dump_json()} {seed} {device} {rank} of {count}"
        if key not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            self._kept[key] = open_data(settings, entry, seed, device, rank, count)
        self._kept.move_to_end(key)
        with self._kept[key] as data:
            yield data
