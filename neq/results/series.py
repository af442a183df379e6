"""What pictures of sweeps are drawn from: groups of runs as points, points as named series."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neq.results.collect import Group, differing
from neq.results.tables import LISTS
from neq.runs.run_reader import number

COSTS = ("step_seconds", "saved_bytes", "peak_memory_bytes")
MOST_SERIES = 12
# What the panel, the place on its axis and the policy tell already.
_TOLD = {"dataset", "net_name", "budget_unit", "budget", "ratio", "scheme", *LISTS, "neuron_selection"}


@dataclass(frozen=True)
class Value:
    """A figure over seeds.

    Args:
        mean: of the seeds.
        deviation: standard deviation (n - 1); 0 for one seed.
        count: of the seeds.
    """

    mean: float
    deviation: float
    count: int

    def scaled(self, factor: float) -> Value:
        """The same in another unit."""
        return Value(factor * self.mean, factor * self.deviation, self.count)


@dataclass(frozen=True)
class Point:
    """What the finished runs of a group reached.

    Args:
        group: the runs.
        budget: in its unit.
        share: what is updated at most, of all selectable parameters, in per cent.
        top1: test top-1 of the best epoch by validation, in per cent.
        costs: by name, those of COSTS that were recorded.
    """

    group: Group
    budget: float
    share: float
    top1: Value
    costs: dict[str, Value]


@dataclass(frozen=True)
class Series:
    """Points that differ in their budget alone, smallest first."""

    name: str
    policy: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """The series of one data set, network and unit of budget, which one picture compares.

    Args:
        dataset: its name.
        network: its name.
        unit: of the budgets.
        series: by name; a policy each where settings differ in too many ways.
        done: how many runs are done.
        expected: how many the sweeps ask for.
    """

    dataset: str
    network: str
    unit: str
    series: tuple[Series, ...]
    done: int
    expected: int

    @property
    def points(self) -> tuple[Point, ...]:
        """Those of all series."""
        return tuple(point for series in self.series for point in series.points)


def panels(groups: Sequence[Group]) -> list[Panel]:
    """The groups by data set, network and unit, those left out of which no run is done.

    Everything at once has the same budget in every unit: it is in every panel of its data set and network.
    """
    by_panel: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        config = group.config
        by_panel.setdefault((config["dataset"], config["net_name"], config["budget_unit"]), []).append(group)
    found = []
    for (data, net, unit), members in by_panel.items():
        series = _series(members)
        if series:
            done = sum(group.seeds_done for group in members)
            expected = sum(group.seeds_expected for group in members)
            found.append(Panel(data, net, unit, series, done, expected))
    return found


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the points that no other beats, cheapest first.

    Args:
        points: (cost, accuracy): less cost is better, more accuracy is.
    """
    front: list[int] = []
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        if not front or points[at][1] > points[front[-1]][1]:
            front.append(at)
    return front


def value_over(runs: Sequence[float | None]) -> Value | None:
    """Mean and deviation of what is known; none where nothing is."""
    known = [value for value in runs if value is not None]
    if not known:
        return None
    return Value(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0, len(known))


def _series(groups: Sequence[Group]) -> tuple[Series, ...]:
    pairs = [(group, point) for group in groups if (point := _point(group)) is not None]
    names = _names([group for group, _ in pairs])
    if len(set(names)) > MOST_SERIES:
        names = [str(group.config["neuron_selection"]) for group, _ in pairs]
    by_name: dict[str, list[Point]] = {}
    for name, (_, point) in zip(names, pairs, strict=True):
        by_name.setdefault(name, []).append(point)
    return tuple(
        Series(
            name,
            str(points[0].group.config["neuron_selection"]),
            tuple(sorted(points, key=lambda point: (point.budget, point.share))),
        )
        for name, points in by_name.items()
    )


def _point(group: Group) -> Point | None:
    summaries = [run.summary for run in group.done if run.summary is not None]
    top1 = value_over([number(summary.get("test_top1")) for summary in summaries])
    if top1 is None:
        return None
    budget = value_over([number(summary.get("budget")) for summary in summaries])
    shares = [
        100 * summary["selected_parameters_max"] / summary["selectable_parameters"]
        for summary in summaries
        if number(summary.get("selected_parameters_max")) is not None
        and number(summary.get("selectable_parameters"))
    ]
    costs = {name: value_over([number(summary.get(name)) for summary in summaries]) for name in COSTS}
    return Point(
        group,
        0.0 if budget is None else budget.mean,
        statistics.fmean(shares) if shares else 0.0,
        top1,
        {name: value for name, value in costs.items() if value is not None},
    )


def _names(groups: Sequence[Group]) -> list[str]:
    """The policy, and what else tells a group from others, its budget apart."""
    varying = sorted(set(differing(group.config for group in groups)) - _TOLD)
    # Where the start follows from the policy it says nothing more.
    starts = {(group.config["neuron_selection"], group.config["initialization"]) for group in groups}
    if len({policy for policy, _ in starts}) == len(starts):
        varying = [key for key in varying if key != "initialization"]
    return [
        ", ".join(
            [
                str(group.config["neuron_selection"]),
                *(f"{key} {_short(group.config.get(key))}" for key in varying),
            ]
        )
        for group in groups
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:15]}…"
