"""The method's published table, and what runs of the same settings reached beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pandas import DataFrame
from pydantic import Field

from neq.config import PolicyName, configs_folder, find_config, network, read_yaml, resolve, to_mapping
from neq.config.catalog import read_entries
from neq.config.keys import flatten_file
from neq.config.policies import POLICIES
from neq.config.schema import Section
from neq.results.frame import settings_of_key

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


# These define a row of the published table.
_NOT_COMPARED = frozenset(
    {
        *("dataset", "net_name", "neuron_selection", "initialization", "manual_seed", "data_fingerprint"),
        *("scheme", "ratio", "budget", "budget_unit", "new_num_classes"),
    }
)


@cache
def published_results() -> Mapping[str, PublishedNetwork]:
    """The published table, by network."""
    return read_entries(FILE, PublishedNetwork)


HEADERS = (
    *("Model", "Dataset", "Budget", "Method", "Initialization", "Ours (%)"),
    *("Standard deviation (points)", "Seeds done", "Seeds expected", "Published (%)", "Difference (points)"),
    "Set otherwise than published",
)


def comparison(groups: DataFrame) -> DataFrame:
    """The settings that have a figure in the published table: data set, network, policy and budget match.

    Args:
        groups: as of `neq.results.groups`.

    Returns:
        Columns: HEADERS. Ours is over the seeds that are done. The last one names what was set otherwise, as
        `n_epochs 5 (120)`, with the published value in brackets.
    """
    rows = []
    for setting, group in groups.iterrows():
        config = settings_of_key(str(setting))
        row, data = _row(config), config["dataset"]
        if row is not None and data in row.top1:
            what = config["net_name"], data, row.budget, row.neuron_selection, config["initialization"]
            ours = group[["test_top1", "test_top1_std", "seeds_done", "seeds_expected"]]
            theirs = row.top1[data]
            differs = ", ".join(_differences(config, row))
            rows.append((*what, *ours, theirs, group["test_top1"] - theirs, differs))
    return DataFrame(rows, columns=list(HEADERS))


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
    """The settings in which a configuration differs from the published runs."""
    theirs = _published_settings(config["net_name"], config["dataset"], row.neuron_selection, row.scheme)
    others = (each for name, each in POLICIES.items() if name != row.neuron_selection)
    ignored = _NOT_COMPARED.union(*(policy.settings for policy in others))
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
        "initialization": policy if POLICIES[policy].is_static else "random",
        "scheme": scheme or "scheme_baseline",
    }
    config = resolve(read_yaml(find_config(str(configs_folder() / "published.yaml"))), given).config
    return flatten_file(to_mapping(config))


def _shown(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
