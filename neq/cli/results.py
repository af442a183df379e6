"""`neq results`: what the runs of sweeps reached: the best network, pictures, the published table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from neq.errors import UserError, unknown_name

# Subcommand -> its module, whose `command(arguments)` gives the exit code; and what it does.
SUBCOMMANDS = {
    "best": ("neq.cli.results_best", "name the best network of the sweeps' runs, and copy it"),
    "plot": ("neq.cli.results_plot", "draw what the runs reached, and what it cost"),
    "compare": ("neq.cli.results_compare", "show what runs reached beside the published table"),
}


class Parser(argparse.ArgumentParser):
    """The parser of a subcommand: a mistake is one line and code 2.

    Args:
        name: of the subcommand.
        description: of what it does.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"neq results {name}", description=description, allow_abbrev=False)
        self.add_argument("files", nargs="+", metavar="FILE", help="sweep files, as policies/digits/su.yaml")
        self.add_argument(
            "--runs-dir", default="runs", metavar="DIR", help="folder of all runs (default: runs)"
        )
        self.add_argument(
            "--config-file",
            metavar="NAME|PATH",
            help="what cells start from where their sweep file does not say (default: transfer)",
        )
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def error(self, message: str) -> NoReturn:
        """Refuses the arguments."""
        raise UserError(f"{self.prog}: {message}")


def command(arguments: Sequence[str]) -> int:
    """Runs a subcommand; gives the exit code.

    Args:
        arguments: "results", the subcommand, its arguments.
    """
    given = [*arguments[1:]]
    if not given or given[0] in ("-h", "--help"):
        print("usage: neq results COMMAND FILE ...\n")
        for name, (_, what) in SUBCOMMANDS.items():
            print(f"  {name:<8} {what}")
        return 0
    if given[0] not in SUBCOMMANDS:
        raise unknown_name("neq results", given[0], SUBCOMMANDS)
    code: int = import_module(SUBCOMMANDS[given[0]][0]).command(given)
    return code
