"""`neq results`: what came out of sweeps."""

from __future__ import annotations

from importlib import import_module

from neq.errors import unknown_name

# What may follow `neq results` -> its module, whose `command(arguments)` gives the exit code; what it does.
COMMANDS = {
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
    given = arguments[1:]
    if not given or given[0] in ("-h", "--help"):
        print("usage: neq results WHAT ...\n")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:<10} {what}")
        return 0
    if given[0] not in COMMANDS:
        raise unknown_name("neq results", given[0], COMMANDS)
    code: int = import_module(COMMANDS[given[0]][0]).command(given)
    return code
