"""The command line: `neq COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from neq.cli import train
from neq.cli.run import run_command
from neq.errors import unknown_name

COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train.main, "train one run under a budget; neq train --help lists every setting"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs `neq COMMAND ARGUMENTS...`; gives the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: neq COMMAND ...\n")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:<10} {what}")
        return 0
    return run_command(_dispatch, arguments)


def _dispatch(arguments: list[str]) -> int:
    if arguments[0] not in COMMANDS:
        raise unknown_name("command", arguments[0], COMMANDS, "See neq --help.")
    command, _ = COMMANDS[arguments[0]]
    return command(arguments[1:])
