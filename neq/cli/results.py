"""`neq results`: what came out of sweeps."""

from __future__ import annotations

from neq.cli.dispatch import Commands, dispatch

COMMANDS: Commands = {
    "book": ("neq.cli.book", "gather the runs of sweep files into an Excel book"),
    "best": ("neq.cli.results_best", "name the best network of sweep files' runs, and copy it"),
    "plot": ("neq.cli.results_plot", "draw what runs reached, what it cost and what they chose"),
    "compare": ("neq.cli.results_compare", "show what runs reached beside the published table"),
}


def command(arguments: list[str]) -> int:
    """Passes on to one of COMMANDS; gives the exit code.

    Args:
        arguments: "results", then the name of one and its arguments.
    """
    return dispatch(arguments[1:], COMMANDS, "neq results WHAT", "neq results")
