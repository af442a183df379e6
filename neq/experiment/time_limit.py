"""Training within a time: how many epochs fit, by a few measured steps, and an end where they took longer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from neq.config import POLICIES, Config, resolve, to_mapping
from neq.experiment.run import Notes, StopEarly, open_run, open_run_data
from neq.training import EpochReport, Progress, Training, choose_neurons, make_plan
from neq.training.epoch_state import EpochState
from neq.training.evaluation import evaluate
from neq.training.optimizer import make_optimizer
from neq.training.prefix_maps import Inputs
from neq.training.rate_search import search_cost
from neq.training.steps import Epoch, batches_from, train_step
from neq.utils.errors import UserError

_WARM_UP, _MEASURED = 2, 4
# Steps that measuring importance counts as, and what is left for all that is not counted: reading the images
# once, writing checkpoints, drawing the pictures.
_IMPORTANCE_STEPS, _RESERVE = 40, 0.1
# Searches of a run with base_lr auto: under the first epoch's policy, and under the one of the others.
_SEARCHES = 2
LEAST_EPOCHS = 2


@dataclass(frozen=True)
class Durations:
    """Times of a run's parts, in seconds.

    Args:
        start: before the first epoch's steps, the searches of the learning rate among it.
        epoch: one epoch: its steps and its evaluation.
    """

    start: float
    epoch: float

    def total(self, epochs: int) -> float:
        """Seconds of a run of so many epochs, with a reserve for all that is not counted."""
        return (self.start + epochs * self.epoch) / (1 - _RESERVE)

    def epochs(self, seconds: float) -> int:
        """The most epochs that fit.

        Args:
            seconds: for the whole run.

        Raises:
            UserError: fewer than two fit.
        """
        found = int((seconds * (1 - _RESERVE) - self.start) / self.epoch)
        if found < LEAST_EPOCHS:
            least = self.total(LEAST_EPOCHS)
            raise UserError(
                f"{seconds:.0f} s are not enough: {LEAST_EPOCHS} epochs take about {least:.0f} s here, "
                f"{self.start:.0f} s of them before the first; give more time, fewer images or a --base_lr"
            )
        return found


class Deadline:
    """A tracker that ends a run, unfinished, where another epoch would take longer than there is time.

    Args:
        seconds: from now on.
        is_strict: whether the run also ends in the middle of an epoch, whose steps are lost, once they have
            passed.
    """

    def __init__(self, seconds: float, is_strict: bool = False) -> None:
        self._end = time.monotonic() + seconds
        self._is_strict = is_strict
        self._started: float | None = None
        self._took = 0.0
        self.is_over = False

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Raises StopEarly in an epoch's first step, when the last epoch is saved, if time is too short."""
        now = time.monotonic()
        self.is_over = self._is_strict and now > self._end
        if step == 0:
            self._started = now
            self.is_over |= bool(self._took) and now + self._took > self._end
        if self.is_over:
            raise StopEarly

    def epoch(self, report: EpochReport) -> None:
        """Measures the epoch with its evaluation, without a search of the rate before it."""
        if self._started is not None:  # not of one that was resumed in its middle
            self._took = time.monotonic() - self._started

    def finish(self, summary: dict[str, Any]) -> None:
        """Does nothing."""


def measure_durations(config: Config, runs: Path, notes: Notes) -> Durations:
    """The durations of a run, by measured steps; nothing is written, and no network is changed.

    The steps update the last neurons that the budget holds, which take as long as those that it may choose.

    Args:
        config: of the run, resolved.
        runs: folder of all runs.
        notes: called with each line for the user.
    """
    stand_in = {"neuron_selection": "last", "initialization": "last", "cost_aware": False, "base_lr": 1e-6}
    with open_run(resolve(to_mapping(config), stand_in).config, runs, notes, open_run_data) as (run, _):
        step = _step_seconds(run)
        started = time.perf_counter()
        evaluate(run, "validation")
        evaluation = time.perf_counter() - started
        return durations(run, config, step, evaluation / run.data.counts["validation"])


def durations(run: Training, config: Config, step: float, image: float) -> Durations:
    """The durations of a run, by those of its parts.

    Args:
        run: with its data and its task.
        config: that it would train by.
        step: seconds of a training step.
        image: seconds of an image in an evaluation.
    """
    settings, policy = config.run_config, POLICIES[config.NEq_config.neuron_selection]
    steps, evaluations = search_cost(settings, run.task.steps_per_epoch)
    searches = 0 if isinstance(settings.base_lr, float) else _SEARCHES
    evaluation, test = (image * run.data.counts[split] for split in ("validation", "test"))
    importance = _IMPORTANCE_STEPS * step if policy.needs == "importance" else 0.0
    start = searches * (steps * step + evaluations * evaluation) + importance
    # An epoch that is the best so far is tested, and each may be.
    return Durations(start, run.task.steps_per_epoch * step + evaluation + test)


def _step_seconds(run: Training) -> float:
    """The seconds of a training step, its batch included."""
    choice = choose_neurons(run, Progress(), 0)
    plan = make_plan(run, run.policy(0), choice.chosen)
    extra = run.task.extra_parameters()
    optimizer = make_optimizer(plan, run.config, extra.values())
    state = EpochState.start(choice, _WARM_UP + _MEASURED, run.device)
    epoch = Epoch(0, state, plan, Inputs(run.task, plan), optimizer, extra, 0.0)
    for number, batch in enumerate(islice(batches_from(run.task, 0), _WARM_UP + _MEASURED)):
        if number == _WARM_UP:
            started = time.perf_counter()
        state.add(train_step(run, epoch, batch))
        float(state.losses[number])  # waits for the device
    return (time.perf_counter() - started) / _MEASURED
