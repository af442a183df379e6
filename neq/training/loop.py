"""The training loop: each epoch chooses neurons, trains, measures and records."""

from __future__ import annotations

import statistics
from typing import Any

from neq.backward import carry_optimizer_state
from neq.selection import previous_values
from neq.training.averages import Averages
from neq.training.context import Progress, Training, choose_neurons, make_plan
from neq.training.epoch_state import EpochState
from neq.training.measurement import Measured, measure
from neq.training.metrics import best_scores, score_metrics, selection_metrics, summary
from neq.training.optimizer import carry_task_state, make_optimizer
from neq.training.rate_search import base_rate
from neq.training.schedule import total_epochs
from neq.training.steps import Epoch, save, train_steps
from neq.training.stopping import Stopped
from neq.training.tracker import EpochReport


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
        if _is_patient_enough(run, progress):
            break
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


def _is_patient_enough(run: Training, progress: Progress) -> bool:
    """Whether as many epochs as `patience` have not been better than the best one before them."""
    patience = run.config.run_config.patience
    if patience is None or not progress.best or progress.epoch_state is not None:
        return False
    waited = progress.epoch - 1 - int(progress.best["epoch"])
    if waited >= patience:
        run.notes(f"no better validation in {waited} epochs: training ends after {progress.epoch} epochs")
    return waited >= patience


def _train_epoch(run: Training, progress: Progress, number: int) -> bool:
    """One epoch; updates progress, and returns whether the epoch is the best so far.

    Raises:
        Stopped: the run was asked to stop; progress stands after a step of this epoch.
    """
    epoch = _choose(run, progress, number)
    scores = train_steps(run, progress, epoch)
    measured = measure(run, progress, epoch)
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
    if run.main_policy.needs == "velocity" and state.before is None:
        state.before = previous_values(run.network, plan.parts)
    progress.epoch_state = state
    if (decay := run.config.run_config.ema_decay) is not None:
        progress.averages = progress.averages or Averages(decay)
        progress.averages.enter(plan)
    inputs = run.maps.of_steps(run, plan, number)
    base_lr = base_rate(run, progress, number, state, plan, inputs)
    optimizer = make_optimizer(plan, run.config, extra.values())
    carry_optimizer_state(progress.optimizer, optimizer, plan)
    carry_task_state(progress.task_optimizer, optimizer, extra)
    return Epoch(number, state, plan, inputs, optimizer, extra, base_lr)


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
