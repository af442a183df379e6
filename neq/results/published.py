"""The method's published table, and what runs of the same cells reached beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field

from neq.config import PolicyName, configs_folder, find_config, network, read_yaml, resolve, to_mapping
from neq.config.catalog import read_entries
from neq.config.keys import flatten_file
from neq.config.schema import Section
from neq.results.collect import Group
from neq.runs.run_reader import number

FILE = "published_results.yaml"
SOURCE = "Quelennec et al., arXiv 2312.05282"
Percent = Annotated[float, Field(ge=0, le=100)]


class PublishedRow(Section):
    """One row: a budget in conv weights, a policy, test top-1 in per cent by data set; SU's scheme."""

    budget: Annotated[int, Field(ge=0)]
    neuron_selection: PolicyName
    top1: Mapping[str, Percent]
    scheme: str | None = None


class PublishedNetwork(Section):
    """The rows of one network, and the learning rate that they were trained with."""

    base_lr: Annotated[float, Field(gt=0)]
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True)
class Comparison:
    """A group of runs beside the published figure.

    Args:
        group: the runs.
        row: of the published table.
        top1: test top-1 of every run that is done, in per cent.
        theirs: the published mean.
        differs: what was set otherwise than published: `n_epochs 5 (120)`, the published value in brackets.
    """

    group: Group
    row: PublishedRow
    top1: tuple[float, ...]
    theirs: float
    differs: tuple[str, ...]

    @property
    def ours(self) -> float | None:
        """The mean over seeds; none without a run that is done."""
        return statistics.fmean(self.top1) if self.top1 else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds (n - 1); none with fewer than two."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less theirs."""
        return None if self.ours is None else self.ours - self.theirs


# What makes a row what it is.
_NOT_COMPARED = frozenset(
    {
        *("dataset", "net_name", "neuron_selection", "initialization", "manual_seed", "data_fingerprint"),
        *("scheme", "ratio", "budget", "budget_unit", "new_num_classes"),
    }
)
_OF_SU = ("n_bias_update", "manual_weight_idx", "weight_update_ratio")
_OF_VELOCITY = ("velocity_mu", "velocity_rule", "velocity_images", "use_validation_for_velocity")


@cache
def published_results() -> Mapping[str, PublishedNetwork]:
    """The published table, by network."""
    return read_entries(FILE, PublishedNetwork)


def compare(groups: Iterable[Group]) -> list[Comparison]:
    """The groups that have a cell in the published table: data set, network, policy and budget match.

    Args:
        groups: of runs, done or not.
    """
    found = []
    for group in groups:
        row = _row(group.config)
        name = group.config["dataset"]
        if row is not None and name in row.top1:
            numbers = (number((run.summary or {}).get("test_top1")) for run in group.done)
            top1 = tuple(value for value in numbers if value is not None)
            found.append(Comparison(group, row, top1, row.top1[name], _differences(group.config, row)))
    return found


HEADERS = (
    *("Model", "Dataset", "Budget", "Method", "Initialization", "Ours (%)"),
    *("Standard deviation (points)", "Seeds done", "Seeds expected", "Published (%)", "Difference (points)"),
    "Set otherwise than published",
)


def comparison_rows(groups: Iterable[Group]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The comparison as a table: headers, and rows of numbers, text and none where there is no value.

    Args:
        groups: of runs, done or not.
    """
    rows = [
        (
            one.group.config["net_name"],
            one.group.config["dataset"],
            one.row.budget,
            one.row.neuron_selection,
            one.group.config["initialization"],
            one.ours,
            one.deviation,
            one.group.seeds_done,
            one.group.seeds_expected,
            one.theirs,
            one.difference,
            ", ".join(one.differs),
        )
        for one in compare(groups)
    ]
    return HEADERS, rows


def _row(config: Mapping[str, Any]) -> PublishedRow | None:
    """The row of the published table that a configuration belongs to."""
    name = config["net_name"]
    if name not in published_results() or config["budget_unit"] != "parameters":
        return None
    budget = config["budget"]
    if budget is None:
        total = network(name).total_weights
        assert total is not None, "the catalog states it of the published networks"
        budget = min(total, round(config["ratio"] * total))
    for row in published_results()[name].rows:
        # The published code truncates where a ratio is rounded here: one parameter apart is the same budget.
        if row.neuron_selection == config["neuron_selection"] and abs(row.budget - budget) <= 1:
            return row
    return None


def _differences(config: Mapping[str, Any], row: PublishedRow) -> tuple[str, ...]:
    """What a configuration sets otherwise than the published runs."""
    theirs = _published_settings(config["net_name"], config["dataset"], row.neuron_selection, row.scheme)
    ignored = set(_NOT_COMPARED)
    if row.neuron_selection != "SU":
        ignored.update(_OF_SU)
    if row.neuron_selection != "velocity":
        ignored.update(_OF_VELOCITY)
    return tuple(
        f"{name} {_shown(value)} ({_shown(theirs[name])})"
        for name, value in config.items()
        if name not in ignored and name in theirs and value != theirs[name]
    )


@cache
def _published_settings(net: str, data: str, policy: str, scheme: str | None) -> Mapping[str, Any]:
    """Every setting of a published run, leaf -> JSON value."""
    given = {
        "net_name": net,
        "dataset": data,
        "base_lr": published_results()[net].base_lr,
        "neuron_selection": policy,
        "initialization": policy if policy in ("SU", "full") else "random",
        "scheme": scheme or "scheme_baseline",
    }
    config = resolve(read_yaml(find_config(str(configs_folder() / "published.yaml"))), given).config
    return flatten_file(to_mapping(config))


def _shown(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
