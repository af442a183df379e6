"""Data sets by name: configs/datasets.yaml names the function that opens each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from neq.config import dataset
from neq.data.corruptions import corrupted
from neq.data.sources import Source

# From the root that the user gave (None: the folder of all data sets) to the data set.
Opener = Callable[[str | None], Source]


def opener(name: str) -> Opener:
    """The function that opens a data set; only its own module is imported.

    Args:
        name: of the data set.

    Raises:
        UserError: there is no data set of that name.
    """
    found: Opener = _named(dataset(name).opener)
    return found


def open_source(name: str, root: str | None, corruption: str | None = None) -> Source:
    """Open a data set by name; it is downloaded first if that is needed and possible.

    Args:
        name: of the data set.
        root: where it lies; None: the folder of all data sets.
        corruption: of its images, NAME:SEVERITY; None: as they are.

    Raises:
        UserError: the name or the corruption is unknown, or the data cannot be downloaded or read.
    """
    if corruption is None:
        return opener(name)(root)
    published = dataset(name).corruptions
    if published is not None:
        source: Source = _named(published)(root, corruption)
        return source
    return corrupted(opener(name)(root), corruption)


def _named(place: str) -> Any:
    """What MODULE:FUNCTION names."""
    module, _, function = place.partition(":")
    return getattr(import_module(module), function)
