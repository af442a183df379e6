"""The command line: `neq COMMAND ...`. Commands are imported when they are called: torch takes seconds."""

from __future__ import annotations

import sys
from importlib import import_module

from neq.cli.run import run_command
from neq.errors import unknown_name

# Command -> its module, whose `command(arguments)` gives the exit code; and what it does.
COMMANDS = {
    "train": ("neq.cli.train", "train one run under a budget; neq train --help lists every setting"),
    "cost": ("neq.cli.cost", "what a training step costs, without training; flags as of train"),
    "cells": ("neq.cli.cells", "list the cells of a sweep file and which of them are done"),
    "results": ("neq.cli.results", "results of sweeps: neq results book gathers them into an Excel book"),
    "sync": ("neq.cli.sync", "send runs to W&B that it does not have, or not all of"),
    "networks": ("neq.cli.catalog", "list the networks by name; neq networks NAME ... shows some"),
    "datasets": ("neq.cli.catalog", "list the data sets by name"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs `neq COMMAND ARGUMENTS...`; gives the exit code."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["results"]:  # nothing to resume
        return run_command(_dispatch, given, stopped="stopped; nothing was written")
    return run_command(_dispatch, given)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: neq COMMAND ...\n")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:<10} {what}")
        return 0
    if arguments[0] not in COMMANDS:
        raise unknown_name("command", arguments[0], COMMANDS)
    module, _ = COMMANDS[arguments[0]]
    code: int = import_module(module).command(arguments)
    return code
