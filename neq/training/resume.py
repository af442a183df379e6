"""Putting a run back to where a checkpoint stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neq.training.context import Progress, Training
from neq.training.memory import is_out_of_memory
from neq.training.rank_state import take_own
from neq.training.schedule import total_epochs
from neq.utils.errors import UserError, first_line

# What reading something else than was written ends with.
_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def restore(run: Training, state: Mapping[str, Any] | None) -> Progress:
    """Puts a run's network back to where a checkpoint stands, and gives what the run carries from there.

    Args:
        run: its network is changed.
        state: the checkpoint; none for a run that begins.

    Raises:
        UserError: the checkpoint is that of another run, or holds what no run writes.
        RuntimeError: there is no memory for it, or the device fails.
    """
    if state is None:
        return Progress()
    try:
        run.network.load_state_dict(state["network"])
        progress = Progress.of_state(state["progress"], run.device)
        wrong = [name for name, is_right in _holds(run, progress).items() if not is_right]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} of another kind")
        if progress.so_far is not None:
            stream = (run.config.manual_seed, progress.epoch)
            take_own(state["own"], run.network, progress.so_far, run.processes, *stream)
    except _ERRORS as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        raise UserError(
            f"the checkpoint in {run.checkpoints.folder} is not one of this run ({first_line(error)}); put a "
            "copy back, or --overwrite starts the run again"
        ) from error
    return progress


def _holds(run: Training, progress: Progress) -> dict[str, bool]:
    """Whether each thing that a run carries can be one of this run."""
    epochs, so_far, velocity = total_epochs(run.config.run_config), progress.so_far, progress.velocity
    found = {
        "epoch": type(progress.epoch) is int and 0 <= progress.epoch <= epochs - (so_far is not None),
        "chosen": progress.chosen is None or _is_choice(run, progress.chosen),
        "policy": (progress.policy is None) == (progress.chosen is None),
        "optimizer": all(isinstance(value, dict) for value in progress.optimizer.values()),
        "velocity": velocity is None or all(_of_neurons(run, value) for value in vars(velocity).values()),
        "best": isinstance(progress.best, dict),
        "step_seconds": all(isinstance(seconds, float) for seconds in progress.step_seconds),
        "trained_beside_max": isinstance(progress.trained_beside_max, dict),
    }
    if so_far is not None:
        steps = run.data.steps_per_epoch
        found |= {
            "choice": _is_choice(run, so_far.choice.chosen),
            "step": type(so_far.step) is int and 0 <= so_far.step <= steps,
            "losses": so_far.losses.shape == (steps,),
        }
    return found


def _is_choice(run: Training, value: object) -> bool:
    return _of_neurons(run, value) and isinstance(value, Tensor) and value.dtype == torch.bool


def _of_neurons(run: Training, value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == (len(run.table),)
