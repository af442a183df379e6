"""Results of runs: tables and pictures."""

from neq.results.plots import plot_curves, plot_selection
from neq.results.table import summary_table

__all__ = ["plot_curves", "plot_selection", "summary_table"]
