"""The training loop: each epoch chooses neurons, trains, measures and records."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import torch

from neq.backward import carry_optimizer_state
from neq.selection import VelocityState, previous_values, similarity
from neq.training.context import Progress, Training, choose_neurons, make_plan
from neq.training.epoch_state import EpochState
from neq.training.evaluation import evaluate
from neq.training.metrics import best_scores, score_metrics, selection_metrics, summary
from neq.training.optimizer import carry_task_state, make_optimizer
from neq.training.schedule import total_epochs
from neq.training.steps import Epoch, TrainingDiverged, save, train_steps
from neq.training.stopping import Stopped
from neq.training.tracker import EpochReport


@dataclass(frozen=True)
class Measured:
    """What is measured after an epoch's steps.

    Args:
        velocity: of the neurons; none under other policies.
        validation: scores; none without a validation split.
        test: scores, in the epochs that measure them.
        is_best: whether the epoch is the best one so far.
    """

    velocity: VelocityState | None
    validation: dict[str, float] | None
    test: dict[str, float] | None
    is_best: bool


def train(run: Training, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a run to its end.

    Args:
        run: what to train.
        progress: where to continue, as `restore` returns it; none: from the beginning.

    Returns:
        The run's summary, as in summary.json.

    Raises:
        TrainingDiverged: the loss is not finite; the last checkpoint is kept.
        Stopped: the run was asked to stop; it is saved where it stood.
    """
    progress = progress or Progress()
    for epoch in range(progress.epoch, total_epochs(run.config.run_config)):
        if asked := run.processes.largest(run.stop.number):
            raise Stopped(asked)
        try:
            is_best = _train_epoch(run, progress, epoch)
        except Stopped:
            save(run, progress)
            raise
        save(run, progress, is_best)
    result = summary(run, progress)
    for tracker in run.trackers:
        tracker.finish(result)
    return result


def _train_epoch(run: Training, progress: Progress, number: int) -> bool:
    """One epoch; updates progress, and returns whether the epoch is the best so far.

    Raises:
        Stopped: the run was asked to stop; progress stands after a step of this epoch.
    """
    epoch = _choose(run, progress, number)
    scores = train_steps(run, progress, epoch)
    measured = _measure(run, progress, epoch)
    _record(run, progress, epoch, scores, measured)
    return measured.is_best


def _choose(run: Training, progress: Progress, number: int) -> Epoch:
    """The epoch's neurons, with plan and optimizer; an interrupted epoch keeps its choice."""
    state = progress.epoch_state or EpochState.start(
        choose_neurons(run, progress, number), run.task.steps_per_epoch, run.device
    )
    chosen = state.choice.chosen
    run.processes.check_same(f"the neurons chosen for epoch {number}", [chosen])
    plan, extra = make_plan(run, run.policy(number), chosen), run.task.extra_parameters()
    optimizer = make_optimizer(plan, run.config.run_config, extra.values())
    carry_optimizer_state(progress.optimizer, optimizer, plan)
    carry_task_state(progress.task_optimizer, optimizer, extra)
    if run.main_policy.needs == "velocity" and state.before is None:
        state.before = previous_values(run.network, plan.parts)
    progress.epoch_state = state
    return Epoch(number, state, plan, optimizer, extra)


def _measure(run: Training, progress: Progress, epoch: Epoch) -> Measured:
    """Velocities, scores, and whether the epoch is the best so far.

    Raises:
        TrainingDiverged: the validation loss is not finite.
        Stopped: the run was asked to stop; the epoch's steps are kept.
    """
    config, is_last = run.config, epoch.number + 1 == total_epochs(run.config.run_config)
    velocity = _velocity(run, progress, epoch)
    learned = [*run.network.state_dict().values(), *epoch.extra.values()]
    velocities = None if velocity is None else velocity.velocity
    run.processes.check_same(f"the weights after epoch {epoch.number}", [velocities, *learned])
    validation = evaluate(run, "validation") if config.data_provider.use_validation else None
    if validation is not None and not math.isfinite(loss := validation.get("loss", 0.0)):
        raise TrainingDiverged(
            f"the validation loss is {loss} after epoch {epoch.number}; try a lower base_lr"
        )
    # Without validation nothing is chosen by a score: the last epoch is the one to keep.
    best_by, is_best = run.task.best_by, is_last
    if validation is not None:
        is_best = validation[best_by] > progress.best.get(f"val_{best_by}", -math.inf)
    is_due = (epoch.number + 1) % config.run_config.test_per_epochs == 0
    test = evaluate(run, "test") if is_best or is_last or is_due else None
    return Measured(velocity, validation, test, is_best)


def _velocity(run: Training, progress: Progress, epoch: Epoch) -> VelocityState | None:
    """The velocities after an epoch; those before it where none are measured."""
    if epoch.state.before is None:
        return progress.velocity
    images = run.data.velocity_images().to(run.device, memory_format=torch.channels_last)
    phi = similarity(run.network, run.table, images, epoch.state.before)
    phi = run.processes.mean(phi, len(images))
    settings = run.config.NEq_config
    former = progress.velocity or VelocityState.start(len(run.table))
    return former.after_epoch(phi, settings.velocity_mu, settings.velocity_rule)


def _record(
    run: Training, progress: Progress, epoch: Epoch, scores: dict[str, float], measured: Measured
) -> None:
    """Moves progress past the epoch, and reports the epoch to the trackers."""
    choice, best_by = epoch.state.choice, run.task.best_by
    progress.epoch, progress.epoch_state = epoch.number + 1, None
    progress.policy, progress.chosen = run.policy(epoch.number).name, choice.chosen
    progress.velocity = measured.velocity
    progress.step_seconds.append(statistics.median(epoch.state.seconds))
    if measured.test is not None:
        progress.best = best_scores(
            progress.best, epoch.number, measured.validation, measured.test, best_by, measured.is_best
        )
    beside = epoch.plan.trained_values()
    progress.budget_used_max = max(progress.budget_used_max, choice.used)
    progress.selected_parameters_max = max(progress.selected_parameters_max, beside.pop("weights"))
    progress.trained_beside_max = {
        kind: max(count, progress.trained_beside_max.get(kind, 0)) for kind, count in beside.items()
    }
    metrics = {
        "epochs": epoch.number,
        **score_metrics(scores, measured.validation, measured.test, progress.best, best_by),
        **selection_metrics(run.table, choice),
        "Trained beside the budget": beside,
        "step_seconds": progress.step_seconds[-1],
    }
    velocities = None if measured.velocity is None else measured.velocity.velocity
    for tracker in run.trackers:
        tracker.epoch(EpochReport(epoch.number, metrics, choice.chosen, velocities))
