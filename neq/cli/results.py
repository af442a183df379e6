"""`neq results`: the results of sweeps."""

from __future__ import annotations

from neq.cli.dispatch import Commands, dispatch

COMMANDS: Commands = {
    "book": ("neq.cli.results_book", "gather the runs of sweep files into an Excel book"),
    "table": ("neq.cli.results_table", "print a row a setting, and write a row a run as CSV or Parquet"),
    "best": ("neq.cli.results_best", "name the best network among the runs, and copy it"),
    "plot": ("neq.cli.results_plot", "draw accuracy, cost and the neurons that runs chose"),
    "domains": ("neq.cli.results_domains", "show how far the domains of an adaptation lie apart"),
    "compare": ("neq.cli.results_compare", "compare runs with the published table"),
}


def command(arguments: list[str]) -> int:
    """Runs one of COMMANDS.

    Args:
        arguments: "results", then the name of one and its arguments.

    Returns:
        Its exit code.
    """
    return dispatch(arguments[1:], COMMANDS, "neq results WHAT", "neq results")
