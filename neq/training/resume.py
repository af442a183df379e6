"""Restoring a training from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neq.budget import Latency
from neq.networks.parameter_slice import ParameterSlice, named_tensor
from neq.tasks import Task
from neq.training.context import Progress, Training
from neq.training.memory import is_out_of_memory
from neq.training.rank_state import restore_rank
from neq.training.schedule import total_epochs
from neq.utils.errors import UserError, first_line, shown

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
    named, own = state.get("run"), run.checkpoints.run
    if None not in (named, own) and named != own:  # those of earlier versions name none
        raise UserError(
            f"the checkpoint in {run.checkpoints.folder} is of the run {shown(named)}, not of {shown(own)}; "
            "restore a copy, or start the run again with --overwrite"
        )
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
        if "latency" in state:
            run.step_times.latency = Latency.of_state(state["latency"])
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
        "policy": (progress.policy is None) == (progress.chosen is None)
        or (progress.chosen is None and bool(progress.step_settings)),
        "optimizer": all(_of_parameter(run, name, each) for name, each in progress.optimizer.items()),
        "task_optimizer": all(
            value.shape in (run.task.extra_parameters()[name].shape, ())
            for name, state in progress.task_optimizer.items()
            for value in dict(state).values()
            if isinstance(value, Tensor)
        ),
        "velocity": velocity is None or all(_of_neurons(run, value) for value in vars(velocity).values()),
        "best": all(isinstance(value, int | float | None) for value in progress.best.values()),
        "step_seconds": all(isinstance(seconds, float) for seconds in progress.step_seconds),
        "budget_used_max": type(progress.budget_used_max) is int,
        "selected_parameters_max": type(progress.selected_parameters_max) is int,
        "trained_beside_max": all(type(value) is int for value in progress.trained_beside_max.values()),
    }
    found |= {
        "step_settings": all(isinstance(name, str) for name in progress.step_settings),
        "base_lr": isinstance(progress.base_lr, float | None),
        "rate_trials": all(
            isinstance(value, int | float | None)
            for trial in progress.rate_trials
            for value in trial.values()
        ),
    }
    if (averages := progress.averages) is not None:
        known = run.network.state_dict()
        found["averages"] = 0 <= averages.settled <= averages.steps and all(
            values.shape == _shape(known[name], part) for name, (part, values) in averages.rows.items()
        )
    if epoch_state is not None:
        steps, choice, before = run.task.steps_per_epoch, epoch_state.choice, epoch_state.before
        known = run.network.state_dict()
        found |= {
            "choice": _is_choice(run, choice.chosen) and type(choice.used) is int,
            "step": type(epoch_state.step) is int and 0 <= epoch_state.step <= steps,
            "losses": epoch_state.losses.shape == (steps,) and epoch_state.losses.is_floating_point(),
            "counts": all(isinstance(value, int | Tensor) for value in epoch_state.counts.values()),
            "seconds": all(isinstance(seconds, float) for seconds in epoch_state.seconds),
            "before": all(
                values.shape == _shape(known[name], part) for name, (part, values) in (before or {}).items()
            ),
            "random": _is_random(epoch_state.random, required=epoch_state.step > 0),
        }
    return found


def _of_parameter(run: Training, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether an optimizer's state is of a parameter, or of a slice of it."""
    part = ParameterSlice(entry["index"], entry["axis"])
    shape = _shape(named_tensor(run.network, name), part)
    return all(
        value.shape in (shape, ()) for value in dict(entry["state"]).values() if isinstance(value, Tensor)
    )


def _shape(whole: Tensor, part: ParameterSlice) -> tuple[int, ...]:
    """Of a slice of a tensor."""
    shape = list(whole.shape)
    if part.index is not None:
        part.take(whole)  # raises where it has no such channels
        shape[part.axis] = len(part.index)
    return tuple(shape)


def _is_random(random: Mapping[str, Tensor] | None, required: bool) -> bool:
    """Whether these are states of torch's generators; none is needed before the first step."""
    if random is None:
        return not required
    torch.Generator().set_state(random["cpu"])
    return True


def _is_choice(run: Training, value: object) -> bool:
    return _of_neurons(run, value) and isinstance(value, Tensor) and value.dtype == torch.bool


def _of_neurons(run: Training, value: object) -> bool:
    return isinstance(value, Tensor) and value.shape == (len(run.table),)
