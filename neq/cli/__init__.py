"""The command line: `neq COMMAND ...`."""

from __future__ import annotations

import sys

from neq import __version__
from neq.cli.dispatch import Commands, dispatch
from neq.utils.exit_codes import RUN_STOPPED, leave, run_command
from neq.utils.launch_env import reports_signals

COMMANDS: Commands = {
    "train": ("neq.cli.train", "train one run under a budget; neq train --help lists every setting"),
    "adapt": ("neq.cli.adapt", "train on a labelled source domain, adapt to an unlabelled target domain"),
    "fit": ("neq.cli.fit", "fine-tune a network to a folder of photos: neq fit PHOTOS"),
    "plan": ("neq.cli.plan", "how a run fits a memory limit and a deadline: neq plan --memory SIZE"),
    "cost": ("neq.cli.cost", "what a training step costs, without training; flags as of train"),
    "sweep": (
        "neq.cli.sweep",
        "run the cells of a sweep file, without any account; sweep status FILE",
    ),
    "retrain": ("neq.cli.retrain", "train a network on one shifted task after another: neq retrain FILE"),
    "scheme-search": ("neq.cli.scheme_search", "search the layers and shares to train within a budget"),
    "cells": ("neq.cli.cells", "list the cells of a sweep file and which of them are done"),
    "results": ("neq.cli.results", "what came out of sweeps: an Excel book, the best network, pictures"),
    "predict": ("neq.cli.predict", "the classes of photos, by a run's network: neq predict RUN_DIR IMAGE"),
    "serve": ("neq.cli.serve", "a local web page that classifies photos: neq serve RUN_DIR"),
    "report": ("neq.cli.report", "one page about runs, to hand on: neq report RUN_DIR ..."),
    "sync": ("neq.cli.sync", "send runs to W&B that it does not have, or not all of"),
    "export": ("neq.cli.export", "write the best network of a run as an ONNX file"),
    "quantize": ("neq.cli.quantize", "write a float network as an int8 network, which trains as int8:FILE"),
    "compress": ("neq.cli.compress", "make the best network of a run smaller, and fine-tune it again"),
    "partition": ("neq.cli.partition", "networks of two branches for two devices: neq partition show MODEL"),
    "networks": ("neq.cli.catalog", "list the networks by name; neq networks NAME ... shows some"),
    "datasets": ("neq.cli.catalog", "list the data sets by name"),
}

# Commands of one run, which several processes may share.
_TRAINING = ("train", "adapt")
# Commands that may import what torch exports networks with, which takes seconds to be torn down.
_EXPORTING = ("export", "predict", "report")
SWEEP_STOPPED = "stopped; run the same command again to continue"


def main(argv: list[str] | None = None) -> int:
    """Runs `neq COMMAND ARGUMENTS...`; returns the exit code.

    Args:
        argv: the arguments; None: those of the process, which ends here where its teardown takes long.
    """
    is_program = argv is None
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        print(f"neq {__version__}")
        return 0
    command = argv[0] if argv else ""
    reports = command not in _TRAINING or reports_signals()  # others do not share a run between processes
    code = run_command(_dispatch, argv, _stopped(command, argv) if reports else None)
    if is_program and command in _EXPORTING:
        leave(code)
    return code


def _stopped(command: str, argv: list[str]) -> str:
    """The line after SIGINT or SIGTERM: what continues where something was saved."""
    if command in _TRAINING and not {"--dry-run", "--dry_run"} & {*argv}:
        return RUN_STOPPED
    continues = command in ("fit", "sweep", "retrain", "compress", "scheme-search")
    return SWEEP_STOPPED if continues or argv[:2] == ["partition", "search"] else "stopped"


def _dispatch(arguments: list[str]) -> int:
    return dispatch(arguments, COMMANDS, "neq COMMAND", "command")
