"""`neq sync`: sends runs to W&B that are missing or incomplete there, or writes them for TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path

from neq.cli.parsing import Parser
from neq.config import read_yaml
from neq.runs import (
    RunRecord,
    TensorBoardMirror,
    WandbMirror,
    check_tensorboard,
    load_run,
    why_no_wandb,
)
from neq.runs.layout import CONFIG
from neq.runs.wandb.mirror import KILLED, run_name
from neq.utils.console import Console
from neq.utils.errors import UserError


def command(arguments: list[str]) -> int:
    """Sends the runs one after another; returns the exit code: 1 when one of them did not arrive at W&B.

    Args:
        arguments: "sync", then folders of runs.
    """
    parser = Parser(
        prog="neq sync",
        description="Send runs to W&B, or write their curves for TensorBoard; once more changes nothing.",
    )
    parser.add_argument("folders", nargs="+", metavar="RUN_DIR", help="folder of a run, finished or not")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="longest wait for a run (default: 300)",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write event files into the runs' folders; send nothing"
    )
    options = parser.parse_args(arguments[1:])
    folders = [Path(folder).expanduser() for folder in options.folders]
    for folder in folders:
        _ = load_run(folder).identity  # raises where the folder holds no run
    if options.tensorboard:
        check_tensorboard()
        for folder in folders:
            with RunRecord(folder).locked(), TensorBoardMirror(folder):
                pass
        Console().lines(f"tensorboard --logdir {os.path.commonpath(folders)}")
        return 0
    missing = why_no_wandb()
    if missing is not None:
        raise UserError(f"{missing or 'W&B is switched off (WANDB_MODE)'}; nothing was sent")
    console = Console()
    sent = [_send(console, folder, options.timeout) for folder in folders]
    return 0 if all(sent) else 1


def _send(console: Console, folder: Path, patience: float) -> bool:
    """Sends a run; returns whether W&B has all of it."""
    record, config = RunRecord(folder), read_yaml(folder / CONFIG)
    try:
        project, _ = str(config["project_name"]), run_name(config)
    except (LookupError, TypeError):
        raise UserError(f"{folder / CONFIG} is not that of a run; put it back") from None
    with record.locked():
        code = 0 if record.is_finished() else KILLED
        mirror = WandbMirror(folder, config, project, console.note, patience, exit_code=code, follows=False)
        with mirror:
            pass
    return mirror.complete
