"""Probes: which of the plans that fit gains most on validation in the same short time.

Each plan trains from the same network for equal time, evaluation included. Its gain is that of validation
top-1 per second; one within the noise of the split counts as none, and of gains that noise does not tell
apart the plan with the least memory wins.

Source: Xu et al., MPOptimizer, FGCS 164 (2025) 107600 (gain per second of each memory configuration).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from neq.backward import Plan
from neq.budget import Allocation
from neq.planning.gain import Gain
from neq.training import Training, make_plan
from neq.training.epoch_state import EpochState
from neq.training.evaluation import evaluate
from neq.training.optimizer import make_optimizer
from neq.training.prefix_maps import Inputs
from neq.training.rate_search import grid
from neq.training.steps import Epoch, batches_from, is_finite, seed_dropout, train_step
from neq.training.unchanged import unchanged

# The most of a deadline that all probes take.
SHARE = 0.15
# Steps whose losses are kept, more than a probe can take.
_MOST_STEPS = 100_000


def best_plan(gains: Mapping[int, Gain], peaks: Mapping[int, int]) -> int:
    """The number of the plan to run: the highest rate, or the least memory within its standard error.

    Args:
        gains: by number, in the order of preference.
        peaks: predicted bytes, by number.
    """
    best = max(gains.values(), key=lambda gain: gain.rate)
    least = best.rate - best.noise / best.seconds
    tied = [number for number, gain in gains.items() if gain.rate >= least]
    return min(tied, key=lambda number: peaks[number])


def probe(run: Training, choice: Allocation, seconds: float) -> Gain:
    """Trains for a time and evaluates; network, task and random streams are left as they were.

    Args:
        run: with the settings of the plan.
        choice: the neurons that train.
        seconds: for steps and evaluation.
    """
    plan = make_plan(run, run.main_policy, choice.chosen)
    with unchanged(run, plan):
        started = time.perf_counter()
        before = evaluate(run, "validation")["top1"] / 100
        evaluation = time.perf_counter() - started
        is_finite = _trained(run, plan, choice, seconds - 2 * evaluation)
        after = evaluate(run, "validation")["top1"] / 100 if is_finite else before
        took = time.perf_counter() - started - evaluation
    return Gain(before, after, took, run.data.counts["validation"])


def _trained(run: Training, plan: Plan, choice: Allocation, seconds: float) -> bool:
    """Trains for a time; whether the network is finite then."""
    extra = run.task.extra_parameters()
    settings = run.config.run_config
    rates = grid(settings)
    rate = rates[len(rates) // 2] if settings.base_lr == "auto" else float(settings.base_lr)
    optimizer = make_optimizer(plan, run.config, extra.values())
    for group in optimizer.param_groups:
        group["lr"] = rate
    epoch = Epoch(
        0,
        EpochState.start(choice, _MOST_STEPS, run.device),
        plan,
        Inputs(run.task, plan),
        optimizer,
        extra,
        rate,
    )
    seed_dropout(run, epoch)
    end = time.perf_counter() + seconds
    for batch in batches_from(run.task, 0):
        epoch.state.add(train_step(run, epoch, batch))
        if time.perf_counter() >= end or epoch.state.step == _MOST_STEPS:
            break
    return is_finite(run, epoch)
