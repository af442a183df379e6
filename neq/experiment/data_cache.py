"""Data kept open for the next run of a process, which often has the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec

from neq.data import Data

MOST = 4
P = ParamSpec("P")


def kept_open(opening: Callable[P, Data], most: int = MOST) -> Callable[P, Data]:
    """Wraps a function that opens data, so that equal arguments open it once.

    Loader processes end with every run; images that were read and decoded stay.

    Args:
        opening: opens the data, as `open_data` does; arguments with the same repr are equal.
        most: number of data sets that are kept, the most recently used.
    """
    kept: OrderedDict[str, Data] = OrderedDict()

    def opened(*args: P.args, **kwargs: P.kwargs) -> Data:
        key = repr((args, kwargs))
        if key not in kept:
            while len(kept) >= most:
                kept.popitem(last=False)
            kept[key] = opening(*args, **kwargs)
        kept.move_to_end(key)
        return kept[key]

    return opened
