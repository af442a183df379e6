"""Data sets by name: configs/datasets.yaml names the function that opens each."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from neq.config import dataset
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
    module, _, function = dataset(name).opener.partition(":")
    found: Opener = getattr(import_module(module), function)
    return found


def open_source(name: str, root: str | None) -> Source:
    """Open a data set by name; it is downloaded first if that is needed and possible.

    Args:
        name: of the data set.
        root: where it lies; None: the folder of all data sets.

    Raises:
        UserError: the name is unknown, or the data cannot be downloaded or read.
    """
    return opener(name)(root)
