"""Planning a run: its configurations estimated, judged, and written down as settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from neq.config import resolve
from neq.experiment.run import RUNS, open_run, open_run_data
from neq.planning.configurations import PLANNED, Configuration, Space, check_planned, space_of
from neq.planning.device_plan import DevicePlan, PlannedRow
from neq.planning.estimate import Estimator
from neq.planning.gain import Gain
from neq.planning.probing import SHARE, best_plan, probe
from neq.planning.rules import Limits, Row, check_any, choose, judge
from neq.runs.identity import plain_identity
from neq.training import Training
from neq.utils.errors import UserError
from neq.utils.malloc import can_give_back


def plan_run(
    base: Mapping[str, object],
    overrides: Mapping[str, object],
    given: Collection[str],
    limits: Limits,
    notes: Callable[[str], None],
    runs: Path = RUNS,
) -> DevicePlan:
    """The plan of a run; nothing is trained but the few steps that its time is predicted from, on a copy.

    Args:
        base: the file that the run starts from.
        overrides: settings of the run.
        given: those of them that the plan does not change.
        limits: of the run.
        notes: called with each line for the user.
        runs: folder of all runs.

    Raises:
        UserError: a mistake in the configuration, or limits below what any configuration needs.
    """
    with open_planner(base, overrides, given, notes, runs) as planner:
        return planner.plan(limits)


@contextmanager
def open_planner(
    base: Mapping[str, object],
    overrides: Mapping[str, object],
    given: Collection[str],
    notes: Callable[[str], None],
    runs: Path = RUNS,
) -> Iterator[Planner]:
    """Opens the data and builds the network of a run that is to be planned.

    Args:
        base, overrides, given, notes, runs: as of `plan_run`.
    """
    resolved = resolve(base, overrides)
    for line in resolved.notes:
        notes(line)
    check_planned(resolved.config, given)
    with open_run(resolved.config, runs, notes, open_run_data) as (run, _):
        tight = run.device.type == "cpu" and can_give_back()
        space = space_of(resolved.config, given, run.step_spec().batch_size, tight)
        yield Planner(run, Estimator(run, base, overrides), space, given)


@dataclass(frozen=True)
class Planner:
    """Plans one run for any limits; each configuration is estimated once.

    Args:
        run: opened.
        estimator: of it.
        space: the configurations that are compared.
        given: settings that the plan does not change.
    """

    run: Training
    estimator: Estimator
    space: Space
    given: Collection[str] = ()

    @property
    def configurations(self) -> list[Configuration]:
        """All of them, in the order of a plan's rows."""
        return [each for learning in self.space.learnings for each in self.space.configurations(learning)]

    def probe(self, plan: DevicePlan) -> tuple[DevicePlan, dict[int, Gain]]:
        """Trains the preferred row of each of the first things that can be learned, for a short equal time.

        Args:
            plan: of this run, with a deadline; all probes together take a share of it.

        Returns:
            The plan with the best of them in front, and their gains by the number of the row.
        """
        if not self.run.data.counts["validation"]:
            raise UserError("--probe compares validation accuracies; leave out --use_validation 0")
        configurations, numbers = self.configurations, list(plan.alternatives.values())
        seconds = SHARE * plan.limits.deadline / len(numbers)
        gains = {}
        for number in numbers:
            row, learning = plan.rows[number], configurations[number].learning
            run, choice = self.estimator.variant(row.settings), self.estimator.allocation(learning)
            gains[number] = probe(run, choice, seconds)
        best = best_plan(gains, {number: plan.peak(number) for number in numbers})
        return replace(plan, order=(best, *(number for number in plan.order if number != best))), gains

    def plan(self, limits: Limits) -> DevicePlan:
        """The plan within limits.

        Raises:
            UserError: they are below what any configuration needs.
        """
        space, run = self.space, self.run
        self.estimator.limit = limits.memory
        rows = judge(self.configurations, self.estimator, limits, space.batch_size)
        check_any(rows, limits)
        numbers = {row.configuration: number for number, row in enumerate(rows)}
        return DevicePlan(
            run=plain_identity(run.config),
            limits=limits,
            device=f"{run.device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            rows=tuple(_planned(self.estimator, row, limits, numbers) for row in rows),
            order=tuple(numbers[row.configuration] for row in choose(rows, space)),
            given=tuple(name for name in PLANNED if name in self.given),
        )


def _planned(
    estimator: Estimator, row: Row, limits: Limits, numbers: Mapping[Configuration, int]
) -> PlannedRow:
    """A row as settings, and its reason in words."""
    found = row.estimate
    peak, seconds = (None, None) if found is None else (found.peak, found.seconds)
    by = None if row.by is None else numbers[row.by]
    reasons = {
        "R1": f"needs {0 if peak is None else peak:,} of {limits.memory:,} bytes",
        "R2": f"takes {0 if seconds is None else seconds:,.1f} of {limits.deadline:,.1f} s",
        "R3": f"row {by} learns the same, and needs neither more memory nor more time",
        "R4": f"row {by}, with fewer images at a time or neurons, needs too much memory",
    }
    settings = estimator.settings(row.configuration, None if found is None else found.cuts)
    reason = f"{row.rule}: {reasons[row.rule]}" if row.rule else ""
    return PlannedRow(settings, row.configuration.learning.share, peak, seconds, reason, by)
