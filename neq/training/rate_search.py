"""The search of `base_lr: auto`: short trials on a grid of rates, compared by validation loss.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): all rates train for a few steps, the best ones
again from the same start for twice as many. A trial trains the epoch's plan, on the epoch's batches, with an
optimizer and a schedule of its own; afterwards network, task and random streams are as they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from neq.backward import Plan
from neq.config import RunSettings
from neq.training.context import Progress, Training
from neq.training.epoch_state import EpochState
from neq.training.evaluation import evaluate
from neq.training.optimizer import make_optimizer
from neq.training.prefix_maps import Inputs
from neq.training.schedule import total_epochs
from neq.training.steps import (
    Epoch,
    TrainingDiverged,
    batches_from,
    is_finite,
    save,
    seed_dropout,
    task_name,
    train_step,
)
from neq.training.stopping import Stopped
from neq.training.unchanged import unchanged

# Lowest rate of the grid: of SGD without momentum, of Adam and AdamW. Each further one is twice the former.
_LOWEST_SGD, _LOWEST_ADAM, _RATES = 0.00625, 1e-4, 6
# Rungs: the rates that are tried, and in how many times the steps of the first rung.
_RUNGS = ((_RATES, 1), (_RATES // 2, 2))
_STEPS = 20
# Share by which losses must differ to count as different.
_TIE = 0.01


def base_rate(
    run: Training, progress: Progress, number: int, state: EpochState, plan: Plan, inputs: Inputs
) -> float:
    """The learning rate of an epoch after warm-up; searched before its first step where the policy changes.

    Args:
        run: that trains.
        progress: keeps the search's trials and its result.
        number: of the epoch.
        state: of the epoch.
        plan: of its neurons.
        inputs: of its steps.

    Raises:
        TrainingDiverged: the training diverges at every rate.
        Stopped: the run was asked to stop; progress holds the trials that are done.
    """
    given = run.config.run_config.base_lr
    if isinstance(given, float):
        return given
    if state.step == 0 and run.policy(number).name != progress.policy:
        progress.base_lr = _search(run, progress, number, state, plan, inputs)
    assert progress.base_lr is not None
    return progress.base_lr


def grid(settings: RunSettings) -> list[float]:
    """The rates that are tried, ascending.

    With momentum m a gradient moves a weight by 1 / (1 - m) of the rate in the end: SGD's rates are those
    without momentum times 1 - m.
    """
    is_sgd = settings.optimizer_name == "sgd"
    lowest = _LOWEST_SGD * (1 - settings.momentum) if is_sgd else _LOWEST_ADAM
    return [float(f"{lowest * 2**at:.4g}") for at in range(_RATES)]


def search_cost(settings: RunSettings, steps_per_epoch: int) -> tuple[int, int]:
    """What a search takes at most: steps, and evaluations on validation."""
    least = _least_steps(settings, steps_per_epoch)
    return sum(most * times * least for most, times in _RUNGS), sum(most for most, _ in _RUNGS)


def _least_steps(settings: RunSettings, steps_per_epoch: int) -> int:
    """The steps of a trial in the first rung."""
    return min(_STEPS, total_epochs(settings) * steps_per_epoch)


def best_first(losses: Mapping[float, float], rates: Sequence[float]) -> list[float]:
    """Rates from the best on; of losses within 1 % of the lowest the one nearest the grid's middle is best.

    Args:
        losses: by rate.
        rates: the grid, ascending.
    """
    left, ranked = dict(losses), list[float]()
    middle = (len(rates) - 1) / 2
    while left:
        lowest = min(left.values())
        tied = [rate for rate in left if left[rate] <= lowest + _TIE * abs(lowest)]
        ranked.append(min(tied, key=lambda rate: (abs(rates.index(rate) - middle), rate)))
        del left[ranked[-1]]
    return ranked


def _search(
    run: Training, progress: Progress, number: int, state: EpochState, plan: Plan, inputs: Inputs
) -> float:
    """Runs the trials that progress does not hold yet, and returns the best rate."""
    settings = run.config.run_config
    rates = left = grid(settings)
    least = _least_steps(settings, run.task.steps_per_epoch)
    losses = dict[float, float]()
    for rung, (most, times) in enumerate(_RUNGS):
        left, losses = left[:most], {}
        for rate in left:
            trial: dict[str, Any] = {"epoch": number, "rung": rung, "rate": rate, "steps": times * least}
            done = (one for one in progress.rate_trials if trial.items() <= one.items())
            if (found := next(done, None)) is None:
                with unchanged(run, plan, state.before):
                    found = trial | {
                        "val_loss": _trial(run, number, state, plan, inputs, rate, times * least)
                    }
                progress.rate_trials.append(found)
                if settings.checkpoint_minutes:
                    save(run, progress)
            if found["val_loss"] is not None:
                losses[rate] = found["val_loss"]
        if not losses:
            raise TrainingDiverged(
                f"the training diverges at every rate that base_lr auto tries, {left[0]:g} and others, in "
                f"epoch {number}; try a lower base_lr or a longer warm-up"
            )
        left = best_first(losses, rates)
    tried = ", ".join(f"{rate:g} {loss:.4f}" for rate, loss in sorted(losses.items()))
    end = ", an end of the grid," if left[0] in (rates[0], rates[-1]) else ""
    run.notes(
        f"base_lr auto tries {rates[0]:g} to {rates[-1]:g} from epoch {number} on: "
        f"{left[0]:g}{end} (validation loss by rate: {tried})"
    )
    return left[0]


def _trial(
    run: Training, number: int, state: EpochState, plan: Plan, inputs: Inputs, rate: float, steps: int
) -> float | None:
    """The validation loss after a cosine schedule from a rate to 0; none where the training diverges."""
    extra = run.task.extra_parameters()
    optimizer = make_optimizer(plan, run.config, extra.values())
    trial = Epoch(
        number,
        EpochState.start(state.choice, steps, run.device),
        plan,
        inputs,
        optimizer,
        extra,
        base_lr=rate,
    )
    seed_dropout(run, trial)
    for batch in islice(batches_from(inputs.task, number), steps):
        if asked := run.processes.largest(run.stop.number):
            raise Stopped(asked)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * trial.state.step / steps)) / 2
        trial.state.add(train_step(run, trial, batch))
        for check in run.checks:
            check()
    run.processes.average_statistics(run.network, run.task.share)
    if not is_finite(run, trial):
        return None
    scores = evaluate(run, "validation")
    if "loss" not in scores:
        raise ValueError(
            f"base_lr auto compares validation losses, but the scores of {task_name(run)} are "
            f"{', '.join(scores)}; add loss to them"
        )
    return scores["loss"] if math.isfinite(scores["loss"]) else None
