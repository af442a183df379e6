"""Planning a run: its configurations estimated, judged, and written down as settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from neq.config import resolve
from neq.experiment.run import RUNS, open_run, open_run_data
from neq.planning.configurations import space_of
from neq.planning.device_plan import DevicePlan, PlannedRow
from neq.planning.estimate import Estimator
from neq.planning.rules import Limits, Row, check_any, choose, judge
from neq.runs.identity import plain_identity
from neq.utils.malloc import can_give_back


def plan_run(
    base: Mapping[str, object],
    overrides: Mapping[str, object],
    limits: Limits,
    notes: Callable[[str], None],
    runs: Path = RUNS,
) -> DevicePlan:
    """Plans a run; nothing is trained but the few steps that its time is predicted from, on a copy.

    Args:
        base: the file that the run starts from.
        overrides: settings that stay as they are given.
        limits: of the run.
        notes: called with each line for the user.
        runs: folder of all runs.

    Raises:
        UserError: a mistake in the configuration, or limits below what any configuration needs.
    """
    resolved = resolve(base, overrides)
    for line in resolved.notes:
        notes(line)
    with open_run(resolved.config, runs, notes, open_run_data) as (run, _):
        batch = run.step_spec().batch_size
        tight = run.device.type == "cpu" and can_give_back()
        space = space_of(resolved.config, overrides.keys(), batch, tight)
        estimator = Estimator(run, base, overrides, notes)
        configurations = [each for learning in space.learnings for each in space.configurations(learning)]
        rows = judge(configurations, estimator, limits, batch)
        check_any(rows, limits)
        numbers = {row.configuration: number for number, row in enumerate(rows)}
        return DevicePlan(
            run=plain_identity(resolved.config),
            limits=limits,
            device=estimator.device,
            rows=tuple(_planned(estimator, row) for row in rows),
            order=tuple(numbers[row.configuration] for row in choose(rows, space)),
        )


def _planned(estimator: Estimator, row: Row) -> PlannedRow:
    found = row.estimate
    return PlannedRow(
        estimator.settings(row.configuration, () if found is None else found.cuts),
        row.configuration.learning.share,
        None if found is None else found.peak,
        None if found is None else found.seconds,
        row.reason,
    )
