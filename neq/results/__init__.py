"""Results of runs: what belongs to a sweep, tables and pictures."""

from neq.results.collect import Group, Run, collect, group
from neq.results.plots import plot_curves, plot_selection
from neq.results.table import summary_table

__all__ = ["Group", "Run", "collect", "group", "plot_curves", "plot_selection", "summary_table"]
