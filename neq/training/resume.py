"""Restoring a training from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neq.tasks import Task
from neq.training.context import Progress, Training
from neq.training.memory import is_out_of_memory
from neq.training.rank_state import restore_rank
from neq.training.schedule import total_epochs
from neq.utils.errors import UserError, first_line

# Raised where a checkpoint holds something else than a run writes.
_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def restore(run: Training, state: Mapping[str, Any] | None) -> Progress:
    """Restores network and task from a checkpoint, and returns the progress to continue from.

    Args:
        run: its network and task are changed.
        state: the checkpoint; none for a run that begins.

    Raises:
        UserError: the checkpoint is of another run, or holds what no run writes.
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
        if progress.epoch_state is not None:
            stream = (run.config.manual_seed, progress.epoch)
            restore_rank(state["ranks"], run.network, progress.epoch_state, run.processes, *stream)
        _restore_task(run.task, state.get("task", {"parameters": {}, "state": {}}))
    except _ERRORS as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        raise UserError(
            f"the checkpoint in {run.checkpoints.folder} is not one of this run ({first_line(error)}); "
            "restore a copy, or start the run again with --overwrite"
        ) from error
    return progress


def _restore_task(task: Task[Any], state: Mapping[str, Any]) -> None:
    """Restores the task's own parameters and state.

    Raises:
        ValueError: they are those of another task.
    """
    parameters = task.extra_parameters()
    if state["parameters"].keys() != parameters.keys():
        raise ValueError("the task has other parameters")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state["parameters"][name])
    task.load_state(state["state"])


def _holds(run: Training, progress: Progress) -> dict[str, bool]:
    """Whether each part of the progress can be one of this run."""
    epochs, epoch_state = total_epochs(run.config.run_config), progress.epoch_state
    velocity = progress.velocity
    found = {
        "epoch": type(progress.epoch) is int and 0 <= progress.epoch <= epochs - (epoch_state is not None),
        "chosen": progress.chosen is None or _is_choice(run, progress.chosen),
        "policy": (progress.policy is None) == (progress.chosen is None),
        "optimizer": all(isinstance(value, dict) for value in progress.optimizer.values()),
        "task_optimizer": all(isinstance(value, dict) for value in progress.task_optimizer.values()),
        "velocity": velocity is None or all(_of_neurons(run, value) for value in vars(velocity).values()),
        "best": isinstance(progress.best, dict),
        "step_seconds": all(isinstance(seconds, float) for seconds in progress.step_seconds),
        "trained_beside_max": isinstance(progress.trained_beside_max, dict),
    }
    if epoch_state is not None:
        steps = run.task.steps_per_epoch
        found |= {
            "choice": _is_choice(run, epoch_state.choice.chosen),
            "step": type(epoch_state.step) is int and 0 <= epoch_state.step <= steps,
            "losses": epoch_state.losses.shape == (steps,),
        }
    return found


def _is_choice(run: Training, value: object) -> bool:
    return _of_neurons(run, value) and isinstance(value, Tensor) and value.dtype == torch.bool


def _of_neurons(run: Training, value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == (len(run.table),)
