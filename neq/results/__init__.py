"""Results of sweeps: a DataFrame of their runs, tables, an Excel book, pictures, the best network.

All but `collect` is imported when it is first used: training, which draws its own pictures, does not wait
for pandas, nor a table for matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neq.results.runs_of_sweep import collect
from neq.runs.run_reader import Run

if TYPE_CHECKING:
    from neq.results.frame import runs
    from neq.results.grouping import groups
    from neq.results.run_pictures import plot_curves, plot_selection
    from neq.results.table import summary_table

__all__ = ["Run", "collect", "groups", "plot_curves", "plot_selection", "runs", "summary_table"]
_LATER = {
    "runs": "neq.results.frame",
    "groups": "neq.results.grouping",
    "plot_curves": "neq.results.run_pictures",
    "plot_selection": "neq.results.run_pictures",
    "summary_table": "neq.results.table",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
