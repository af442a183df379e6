"""Loading a library's weights without executing code, and the error where they are unavailable."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

from neq.utils.errors import UserError, first_line

SWITCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def tensors_alone() -> Iterator[None]:
    """Context in which torch.load reads tensors and plain values only, also where a library calls it.

    torchvision's call would unpickle any file in the cache, and the cache is where users put files that
    cannot be downloaded.
    """
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def not_loaded(net_name: str, library: str, url: str, file: Path, error: Exception) -> UserError:
    """The error for weights that could not be loaded, in one line.

    Args:
        net_name: the network's name as the user gave it.
        library: that provides the weights.
        url: that they are downloaded from.
        file: that is read first.
        error: the failure.
    """
    reason = first_line(error)
    if isinstance(error, pickle.UnpicklingError):  # whose text suggests executing it
        reason = "it is damaged, or holds more than tensors; nothing in it was executed"
    needs = f"net_name {net_name!r} needs {library}'s weights"
    if file.exists() and not isinstance(error, URLError):
        return UserError(
            f"{needs}, but {file} cannot be read ({reason}); remove it, and it is downloaded again"
        )
    return UserError(
        f"{needs}, which could not be loaded from {url} ({reason}); put that file at {file}, "
        "give weights FILE, or weights none for a random start"
    )
