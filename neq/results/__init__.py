"""Results of sweeps: a DataFrame of their runs, tables, an Excel book, pictures, the best network.

`runs` and `groups` load pandas when they are first used: training, which draws its own pictures, does not
wait for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neq.results.runs_of_sweep import Run, collect

if TYPE_CHECKING:
    from neq.results.frame import runs
    from neq.results.grouping import groups

__all__ = ["Run", "collect", "groups", "runs"]
_LATER = {"runs": "neq.results.frame", "groups": "neq.results.grouping"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
