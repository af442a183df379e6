"""Data kept open for the next cell of a sweep, which often has the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec

from neq.data import Data

MOST = 4
P = ParamSpec("P")


def kept_open(opening: Callable[P, Data], most: int = MOST) -> Callable[P, Data]:
    """Opens data once for all cells that ask for it with the same arguments.

    Loader processes end with every cell; what was read and decoded stays.

    Args:
        opening: opens the data, as `open_data` does; arguments that print alike are the same to it.
        most: data sets that are kept, the latest used.
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
