"""`neq train` and train_classification.py: flags first, so that a mistake in them is told at once."""

from __future__ import annotations

from neq.config import Options, Resolved, by_path, in_wandb_sweep, load, own_flags, wandb_values
from neq.utils.errors import UserError
from neq.utils.launch_env import first_tells, one_output
from neq.utils.malloc import give_back_at_once


def command(arguments: list[str]) -> int:
    """Trains one run as the arguments say; gives the exit code.

    Args:
        arguments: "train", then flags.
    """
    with one_output():
        with first_tells():
            options, resolved = _read(arguments[1:])
            if resolved.config.memory == "tight":
                give_back_at_once()  # before torch is imported
        from neq.experiment.run import run_training

        run_training(options, resolved)
    return 0


def _read(flags: list[str]) -> tuple[Options, Resolved]:
    """What flags and, in a sweep of W&B, its values come to."""
    values = wandb_values()
    given = by_path(values)
    if in_wandb_sweep() and "--overwrite" not in flags:
        given.setdefault("resume", True)  # a cell that was started before is gone on with
    options, resolved = load(own_flags(flags, values), "neq train", given)
    if options.overwrite and resolved.config.resume:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    return options, resolved
