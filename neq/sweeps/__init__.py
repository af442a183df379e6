"""Sweep files in W&B's own format: their cells, the queue of cells in a storage, and workers that run them.

Modules that need Optuna (`queue`, `trials`, `storage`, `search`, `history`, `worker`) are imported by their
own names, so that listing cells does not wait for it.
"""

from neq.sweeps.cells import MAX_CELLS, Cell, cells, check_search, grid, grid_size, read_cells
from neq.sweeps.parameters import Choice, Drawn, Parameter
from neq.sweeps.sweep_file import EarlyTerminate, Sweep, read_sweep

__all__ = [
    "MAX_CELLS",
    "Cell",
    "Choice",
    "Drawn",
    "EarlyTerminate",
    "Parameter",
    "Sweep",
    "cells",
    "check_search",
    "grid",
    "grid_size",
    "read_cells",
    "read_sweep",
]
