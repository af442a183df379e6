"""`neq train` and train_classification.py: flags first, so that a mistake in them is told at once."""

from __future__ import annotations

from neq.config import in_wandb_sweep, load, wandb_values
from neq.errors import UserError


def command(arguments: list[str]) -> int:
    """Trains one run as the arguments say; gives the exit code.

    Args:
        arguments: "train", then flags.
    """
    # A cell that was started before is gone on with.
    given = {"resume": "--overwrite" not in arguments, **wandb_values()} if in_wandb_sweep() else {}
    options, resolved = load(arguments[1:], "neq train", given)
    if options.overwrite and resolved.config.resume:
        raise UserError("--resume and --overwrite contradict each other; give one of them")
    from neq.cli.training import run_training

    run_training(options, resolved)
    return 0
