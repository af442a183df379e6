"""`neq train` and train_classification.py: flags first, so that a mistake in them is reported at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neq.config import Options, Resolved, in_wandb_sweep, load, own_flags, wandb_values
from neq.utils.errors import UserError
from neq.utils.launch_env import first_reports, launch_rank, one_output
from neq.utils.malloc import give_back_at_once

if TYPE_CHECKING:
    from neq.utils.console import Console


_WITH_PLAN = (
    "Within a memory limit: neq train --plan auto --memory SIZE [--deadline TIME], or --plan FILE; "
    "neq train --plan auto --help shows more."
)


def command(arguments: list[str]) -> int:
    """Trains one run; returns the exit code.

    Args:
        arguments: "train", then flags.
    """
    if any(flag == "--plan" or flag.startswith("--plan=") for flag in arguments):
        from neq.cli import planned_train

        return planned_train.command(arguments)
    return train_from(partial(_read, arguments[1:]))


def train_from(read: Callable[[], tuple[Options, Resolved]]) -> int:
    """Reads a command's options and trains its run; returns the exit code.

    Args:
        read: returns the options, and the run's configuration.
    """
    with one_output():
        with first_reports():
            options, resolved = read()
            if options.overwrite and resolved.config.resume:
                raise UserError("--resume and --overwrite contradict each other; give one of them")
            if resolved.config.memory == "tight":
                give_back_at_once()  # before torch is imported
        _train(options, resolved)
    return 0


def _read(flags: list[str]) -> tuple[Options, Resolved]:
    """The configuration by the flags and, in a sweep of W&B, by its values."""
    values = wandb_values()
    given = dict(values)
    if in_wandb_sweep() and "--overwrite" not in flags:
        given.setdefault("resume", True)  # a cell that was started before is resumed
    return load(own_flags(flags, values), "neq train", given, _WITH_PLAN)


def _train(options: Options, resolved: Resolved) -> None:
    """Trains with a progress display; then draws the pictures and prints the summary."""
    from neq.cli.progress import ProgressDisplay
    from neq.experiment.run import dry_run, run_training
    from neq.training import stop_on_signals, total_epochs
    from neq.utils.console import Console

    console, config = Console(), resolved.config
    if in_wandb_sweep():
        console.note(f"settings that the sweep does not give: those of configuration {options.config_file}")
    for line in resolved.notes:
        console.note(line)
    if options.dry_run:
        for part in dry_run(config, notes=console.note):
            console.print(part)
        return
    with ProgressDisplay(console, total_epochs(config.run_config)) as display:
        folder = run_training(
            config,
            overwrite=options.overwrite,
            trackers=(display,),
            notes=console.note,
            stopping=stop_on_signals,
        )
    if launch_rank().rank == 0:
        conclude(console, folder)


def conclude(console: Console, folder: Path) -> None:
    """Draws the run's pictures; prints its summary and its folder."""
    from neq.cli.run_pictures import draw_missing, images_title
    from neq.results import summary_table
    from neq.runs import read_summary

    for line in draw_missing(folder):
        console.note(line)
    console.print(summary_table(read_summary(folder), images_title(folder)))
    console.lines(f"{folder}")
