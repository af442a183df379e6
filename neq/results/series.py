"""What pictures and charts of sweeps are drawn from: settings as points, points as named series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from pandas import DataFrame, Series

from neq.results.grouping import policy_rank, series_names
from neq.runs.metrics import cost_metrics

MOST_SERIES = 12


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
    """What the finished runs of a setting reached.

    Args:
        budget: in its unit.
        share: the most that is updated, of all selectable parameters, in per cent.
        top1: test top-1 of the best epoch by validation, in per cent.
        costs: by name, those of the metric table that were recorded.
    """

    budget: float
    share: float
    top1: Value
    costs: dict[str, Value]


@dataclass(frozen=True)
class PointSeries:
    """Points that differ in their budget alone, smallest first.

    Args:
        name: the policy, and the settings in which it differs from other series.
        policy: its name.
        points: one or more.
        is_joined: whether a line from point to point means something: each has a budget of its own, and
            they share all other settings.
    """

    name: str
    policy: str
    points: tuple[Point, ...]
    is_joined: bool


@dataclass(frozen=True)
class Panel:
    """The series of one data set, network and unit of budget, which one picture compares.

    Args:
        dataset: its name.
        network: its name.
        unit: of the budgets.
        series: by policy; one for each policy where settings differ in too many ways.
        done: number of runs that are done.
        expected: number of runs that the sweeps ask for.
        devices: on which they ran.
        memory_kinds: how peak memory was measured.
    """

    dataset: str
    network: str
    unit: str
    series: tuple[PointSeries, ...]
    done: int
    expected: int
    devices: tuple[str, ...]
    memory_kinds: tuple[str, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """Those of all series."""
        return tuple(point for series in self.series for point in series.points)


def panels(table: DataFrame, most: int = MOST_SERIES) -> list[Panel]:
    """The settings by data set, network and unit of the budget; those without a finished run are left out.

    Args:
        table: as of `groups`.
        most: series in a panel; where there would be more, each policy is one, of points that are not joined.
    """
    found = []
    for (dataset, network, unit), members in table.groupby(
        ["dataset", "net_name", "budget_unit"], sort=False
    ):
        share = 100 * members["selected_parameters_max"] / members["selectable_parameters"]
        rated = members.assign(share=share)[members["test_top1"].notna()]
        if len(rated):
            found.append(
                Panel(
                    str(dataset),
                    str(network),
                    str(unit),
                    _series(rated, most),
                    int(members["seeds_done"].sum()),
                    int(members["seeds_expected"].sum()),
                    _texts(rated["device"]),
                    _texts(rated["peak_memory_kind"]),
                )
            )
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


def _series(rated: DataFrame, most: int) -> tuple[PointSeries, ...]:
    names = Series(series_names(rated), index=rated.index)
    is_merged = names.nunique() > most
    if is_merged:
        policies = rated["neuron_selection"].astype(str)
        several = policies.map(names.groupby(policies).nunique()) > 1
        names = policies.where(~several, policies + ", various settings")
    found = []
    for name, rows in rated.groupby(names, sort=False):
        points = sorted(
            (_point(row) for _, row in rows.iterrows()), key=lambda point: (point.budget, point.share)
        )
        budgets = {point.budget for point in points}
        is_joined = not is_merged and len(budgets) == len(points)
        found.append(PointSeries(str(name), str(rows["neuron_selection"].iloc[0]), tuple(points), is_joined))
    return tuple(sorted(found, key=lambda series: policy_rank(series.policy)))


def _point(row: Series) -> Point:
    costs = {name: value for name in cost_metrics() if (value := value_of(row, name)) is not None}
    top1 = value_of(row, "test_top1")
    assert top1 is not None
    return Point(_known(row["budget_amount"]), _known(row["share"]), top1, costs)


def value_of(row: Series, name: str) -> Value | None:
    """A figure of a row of `groups`; none where no seed has it."""
    if pd.isna(row[name]):
        return None
    return Value(float(row[name]), _known(row[f"{name}_std"]), int(row[f"{name}_count"]))


def _known(value: float) -> float:
    return 0.0 if pd.isna(value) or abs(value) == float("inf") else float(value)


def _texts(values: Series) -> tuple[str, ...]:
    return tuple(sorted({part for value in values.dropna() for part in str(value).split(", ")}))
