"""The steps of one epoch, and saving a training where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import Plan, optimizer_state
from neq.tasks import StepOutput, Task, add_counts
from neq.training.context import Progress, Training
from neq.training.displacement import Displacement
from neq.training.epoch_state import EpochState
from neq.training.evaluation import sum_counts
from neq.training.forward import NetworkForward
from neq.training.optimizer import task_state
from neq.training.prefix_maps import Inputs
from neq.training.profiling import SavedBytes, StepClock
from neq.training.rank_state import gather_ranks
from neq.training.schedule import learning_rate, total_epochs
from neq.training.stopping import Stopped
from neq.utils.seeds import seed_for


class TrainingDiverged(RuntimeError):
    """The loss, or a weight, is not finite."""


@dataclass(frozen=True)
class Epoch:
    """An epoch and what trains in it.

    Args:
        number: from 0.
        state: its progress; changes with every step.
        plan: of its neurons.
        inputs: what its steps pass through.
        optimizer: over the plan's parameters and the task's.
        extra: the task's parameters, by name.
        base_lr: the learning rate after warm-up.
    """

    number: int
    state: EpochState
    plan: Plan
    inputs: Inputs
    optimizer: torch.optim.Optimizer
    extra: Mapping[str, nn.Parameter]
    base_lr: float

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that trains: the plan's parameters, then the task's."""
        return chain(self.plan.parameters(), self.extra.values())


def train_steps(run: Training, progress: Progress, epoch: Epoch) -> dict[str, float]:
    """Trains the remaining steps of an epoch.

    Returns:
        The task's scores over all of the epoch's batches, the mean loss, and `lr` of the last step.

    Raises:
        TrainingDiverged: the loss or a weight is not finite.
        Stopped: the run was asked to stop; progress holds the state after the last step.
        ValueError: the task breaks its protocol.
    """
    state, steps = epoch.state, run.task.steps_per_epoch
    seed_dropout(run, epoch)
    clock = StepClock(run.device, state.seconds)
    for batch in epoch.inputs.task.batches(epoch.number, state.step):
        if state.step == steps:
            raise ValueError(f"{task_name(run)} yields more than its {steps} batches in epoch {epoch.number}")
        for group in epoch.optimizer.param_groups:
            group["lr"] = _rate(run, epoch, state.step)
        measured = None
        if progress.saved_bytes is None and _shows_the_policy(run, epoch.number):
            if epoch.plan.segments is None:
                measured = SavedBytes(
                    chain(run.network.parameters(), run.network.buffers(), epoch.parameters())
                )
            else:  # what runs again in backward cannot be listened to
                model = run.allocator(run.policy(epoch.number)).model
                progress.saved_bytes = model.step(epoch.plan.selection).saved_bytes
        with clock.step():
            output = train_step(run, epoch, batch, measured)
        if measured is not None:
            progress.saved_bytes = run.processes.sum(measured.total)
        state.add(output)
        if progress.averages is not None:
            progress.averages.update(epoch.plan)
        for tracker in run.trackers:
            tracker.step(epoch.number, state.step - 1, steps)
        _save_or_stop(run, progress, epoch)
    if state.step != steps:
        raise ValueError(
            f"{task_name(run)} yields {state.step} of its {steps} batches in epoch {epoch.number}; "
            "set steps_per_epoch to the number of batches"
        )
    run.processes.average_statistics(run.network, run.task.share)
    losses = _check_finite(run, epoch)
    _keep_optimizer(progress, epoch)
    if progress.averages is not None:
        progress.averages.settle(epoch.plan)
    scores = run.task.scores(sum_counts(state.counts, run.processes))
    return {**scores, "loss": float(losses.mean()), "lr": _rate(run, epoch, steps - 1)}


def save(run: Training, progress: Progress, is_best: bool = False) -> None:
    """Saves where the training stands; in mid-epoch that differs between the ranks."""
    state: dict[str, Any] = {"network": run.network.state_dict(), "progress": progress.state()}
    extra, task = run.task.extra_parameters(), run.task.state()
    if extra or task:
        parameters = {name: parameter.detach() for name, parameter in extra.items()}
        state["task"] = {"parameters": parameters, "state": task}
    if run.step_times.latency is not None:
        state["latency"] = run.step_times.latency.state()
    if progress.epoch_state is not None:
        state["ranks"] = gather_ranks(run.network, progress.epoch_state, run.processes, run.task.share)
    if is_best and progress.averages is not None:
        run.checkpoints.save(state, is_best, progress.averages.averaged(run.network))
    else:
        run.checkpoints.save(state, is_best)


def train_step(run: Training, epoch: Epoch, batch: object, measured: SavedBytes | None = None) -> StepOutput:
    """Forward and backward for a batch, or for each of its micro-batches, and one update."""
    loss, counts = torch.zeros((), device=run.device), dict[str, Tensor | int]()
    first = 0
    for part, share in epoch.inputs.task.micro_batches(batch, run.parts):
        output, images = _backward(run, epoch, part, share, first, measured)
        first += images
        loss, counts = loss + output.loss.detach() * share, dict(add_counts(counts, output.counts))
        measured = None  # the first part is the largest
    run.processes.average_gradients(epoch, run.task.share)
    if (most := run.config.run_config.grad_clip_norm) is not None:
        nn.utils.clip_grad_norm_(list(epoch.parameters()), most)
    epoch.optimizer.step()
    epoch.optimizer.zero_grad()
    epoch.plan.write_back()
    return StepOutput(loss, counts)


def _backward(
    run: Training, epoch: Epoch, batch: object, share: float, first: int, measured: SavedBytes | None
) -> tuple[StepOutput, int]:
    """Adds the gradients of a micro-batch, weighted by its share of the batch.

    Args:
        first: the number of its first image among this process' images of the batch.

    Returns:
        What the task computed, and how many images it passed through.
    """

    def seeds(call: int, images: int) -> list[int]:
        """Of dropout: by the place of an image in the batch of all processes, which take turns."""
        count, rank = run.processes.count, run.processes.rank
        places = range(rank + first * count, rank + (first + images) * count, count)
        step = ("dropout", epoch.number, epoch.state.step, call)
        return [seed_for(run.config.manual_seed, *step, place) for place in places]

    settings = run.config.run_config
    draws = seeds if run.draws_by_image else None
    displacement = Displacement(
        epoch.plan.parameters(), lambda value: run.processes.sum(value.mul_(run.task.share))
    )
    with displacement:
        forward = NetworkForward(
            epoch.inputs.network, settings.precision, run.shared_batch, measured, draws, displacement
        )
        output = epoch.inputs.task.step(forward, batch)
        _check_calls(run, forward)
        if output.loss.requires_grad:
            (output.loss * share).backward()
        elif next(epoch.parameters(), None) is not None:
            raise ValueError(
                f"the loss of {task_name(run)} has no graph; compute it from what forward returns"
            )
    return output, forward.images


def _check_calls(run: Training, forward: NetworkForward) -> None:
    """Raises:
    ValueError: a step made more forward passes than its task declares.
    """
    if forward.calls > (passes := len(run.task.passes(run.config))):
        raise ValueError(
            f"{task_name(run)} calls forward {forward.calls} times in a step, but its forwards is {passes}; "
            "set forwards, so that the budget counts all of them"
        )


def batches_from(task: Task[Any], number: int) -> Iterator[Any]:
    """The batches of an epoch, then those of the epochs that follow: a small set has few an epoch."""
    return chain.from_iterable(task.batches(epoch, 0) for epoch in count(number))


def task_name(run: Training) -> str:
    """The name of a run's task in error messages."""
    return f"task {type(run.task).__name__}"


def seed_dropout(run: Training, epoch: Epoch) -> None:
    """Seeds the global generator by epoch, so that what draws from it draws the same in a resumed run."""
    if epoch.state.step == 0:
        other = () if run.processes.is_first else (run.processes.rank,)
        torch.manual_seed(seed_for(run.config.manual_seed, "dropout", epoch.number, *other))
    else:
        epoch.state.restore_random()


def _save_or_stop(run: Training, progress: Progress, epoch: Epoch) -> None:
    """Saves where a checkpoint is due; all ranks do, or stop, after the same step.

    Raises:
        Stopped: one of them is asked to stop.
    """
    # No signal that is listened to has the number 1: it stands for a checkpoint that is due.
    due = int(run.checkpoints.is_due(run.config.run_config.checkpoint_minutes))
    asked = run.processes.largest(run.stop.number or due)
    if asked:
        _check_finite(run, epoch)
        _keep_optimizer(progress, epoch)
        if asked > 1:
            raise Stopped(asked)
        save(run, progress)


def _keep_optimizer(progress: Progress, epoch: Epoch) -> None:
    progress.optimizer = optimizer_state(epoch.optimizer, epoch.plan)
    progress.task_optimizer = task_state(epoch.optimizer, epoch.extra)


def _check_finite(run: Training, epoch: Epoch) -> Tensor:
    """Checks that the network may be saved; returns the losses over the whole batches, [steps].

    Raises:
        TrainingDiverged: a loss, a weight or a running statistic is not finite.
    """
    losses = run.processes.sum(epoch.state.losses * run.task.share)
    for step, value in enumerate(losses.tolist()):
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss is {value} in epoch {epoch.number}, step {step}, at learning rate "
                f"{_rate(run, epoch, step):.4g}; try a lower base_lr or a longer warm-up"
            )
    # A last step may spoil the weights, or its batch a running statistic, after a finite loss.
    if not is_finite(run, epoch):
        raise TrainingDiverged(
            f"a weight is no longer finite in epoch {epoch.number}, after step {epoch.state.step - 1}; "
            "try a lower base_lr"
        )
    return losses


def is_finite(run: Training, epoch: Epoch) -> bool:
    """Whether the losses, all that trains and every running statistic are finite, in all processes."""
    values = chain([epoch.state.losses], epoch.parameters(), run.network.buffers())
    here = torch.stack([tensor.isfinite().all() for tensor in values]).all()
    return not run.processes.largest(int(not here))


def _rate(run: Training, epoch: Epoch, step: int) -> float:
    """The learning rate of a step of an epoch."""
    settings, steps = run.config.run_config, run.task.steps_per_epoch
    is_searched_again = settings.base_lr == "auto" and run.policy(0).name != run.main_policy.name
    first = run.initial_epochs if is_searched_again else 0
    return learning_rate(settings, epoch.base_lr, epoch.number * steps + step, steps, first)


def _shows_the_policy(run: Training, epoch: int) -> bool:
    """Whether an epoch's neurons are chosen as most epochs' are, not by the initialization."""
    return epoch >= run.initial_epochs or run.initial_epochs == total_epochs(run.config.run_config)
