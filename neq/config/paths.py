"""Where neq keeps what it downloads and what it computed once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$NEQ_CACHE`, else ~/.cache/neq; it need not exist."""
    return Path(os.environ.get("NEQ_CACHE") or "~/.cache/neq").expanduser()


def data_folder(root: str | None) -> Path:
    """The folder that a data set is looked for in: `root`, else `data` in the cache folder."""
    return cache_folder() / "data" if root is None else Path(root).expanduser()
