"""What pictures and charts of sweeps are drawn from: settings as points of named series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pandas import DataFrame, Series

from neq.results.grouping import policy_rank, series_names
from neq.runs.metrics import cost_metrics

MOST_SERIES = 12


@dataclass(frozen=True)
class Panel:
    """The settings of one data set, network and unit of budget, which one picture compares.

    Args:
        dataset: its name, of images of one's own that of their folder.
        network: its name.
        unit: of the budgets.
        points: rows of `groups` that have a test figure, one series after another, by policy, the smallest
            budget first. Further columns: `series`, the policy and the settings in which it differs from
            other series; `budget`, in its unit; `share`, the most that is updated of all selectable
            parameters, in per cent; `is_joined`, whether a line from point to point means something: each
            has a budget of its own, and they share all other settings. Deviations are 0 for one seed.
        done: number of runs that are done.
        expected: number of runs that the sweeps ask for.
    """

    dataset: str
    network: str
    unit: str
    points: DataFrame
    done: int
    expected: int

    @property
    def series(self) -> list[tuple[str, DataFrame]]:
        """The points of each series, by its name."""
        return [(str(name), rows) for name, rows in self.points.groupby("series", sort=False)]

    def texts(self, column: str) -> list[str]:
        """What the runs recorded in a column of texts, such as `device`."""
        return sorted({part for value in self.points[column].dropna() for part in str(value).split(", ")})


def panels(table: DataFrame, most: int = MOST_SERIES) -> list[Panel]:
    """The settings by data set, network and unit of the budget; those without a finished run are left out.

    Args:
        table: as of `groups`.
        most: series in a panel; where there would be more, each policy is one, of points that are not joined.
    """
    found = []
    for (dataset, network, unit), members in table.groupby(
        ["data_set", "net_name", "budget_unit"], sort=False
    ):
        rated = members[members["test_top1"].notna()]
        if len(rated):
            done, expected = int(members["seeds_done"].sum()), int(members["seeds_expected"].sum())
            points = _points(rated, most)
            found.append(Panel(str(dataset), str(network), str(unit), points, done, expected))
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


def _points(rated: DataFrame, most: int) -> DataFrame:
    names = Series(series_names(rated), index=rated.index)
    policies = rated["neuron_selection"].astype(str)
    is_merged = names.nunique() > most
    if is_merged:
        several = policies.map(names.groupby(policies).nunique()) > 1
        names = policies.where(~several, policies + ", various settings")
    places = {name: at for at, name in enumerate(dict.fromkeys(names))}
    share = 100 * rated["selected_parameters_max"] / rated["selectable_parameters"]
    unknown = {f"{name}_std": 0.0 for name in ("test_top1", *cost_metrics())}
    points = rated.fillna(unknown).assign(
        series=names,
        budget=rated["budget_amount"].fillna(0.0),
        share=share.where(share.abs() != float("inf")).fillna(0.0),
        order=[(policy_rank(policy), places[name]) for policy, name in zip(policies, names, strict=True)],
    )
    points = points.sort_values(["order", "budget", "share"], kind="stable")
    budgets = points.groupby("series")["budget"]
    is_joined = budgets.transform("nunique") == budgets.transform("size")
    return points.assign(is_joined=is_joined & (not is_merged))
