"""The sheet of transfers in the book of results: a row a method, a column a transfer, and published rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

import pandas as pd
from pandas import DataFrame
from pydantic import Field

from neq.config.catalog import read_entries
from neq.config.schema import Section
from neq.results.book import register_sheet
from neq.results.frame import cell_value, settings_of_key
from neq.wings.adaptation import PREFIX

TITLE, FILE = "Transfers", "published_transfers.yaml"
# What tells the transfers of a row apart, or follows from them.
_OF_TRANSFER = frozenset(
    {
        *("transfer", "dataset", "target", "root", "target_root", "data_fingerprint", "mean_std"),
        *("objective", "weights", "new_num_classes", "manual_seed"),
    }
)
Percent = Annotated[float, Field(ge=0, le=100)]


class PublishedTransfers(Section):
    """Published top-1 in per cent of a method, by transfer, and its average as published."""

    source: str
    average: Percent
    top1: Mapping[str, Percent] = {}


@cache
def published_transfers() -> Mapping[str, PublishedTransfers]:
    """The published figures, by method."""
    return read_entries(FILE, PublishedTransfers)


def transfers(groups: DataFrame) -> DataFrame:
    """Test top-1 of adaptations in per cent: the mean over the seeds that are done, and their average.

    Args:
        groups: as of `neq.results.groups`.

    Returns:
        Columns: Method, a column for each transfer, Average (of a row that has all of them), Settings (those
        in which rows differ) and Source; no rows where there is no adaptation.
    """
    own = dict[str, dict[str, float]]()
    for setting, group in groups.iterrows():
        config = settings_of_key(str(setting))
        if config.get("transfer") and config["objective"].startswith(PREFIX):
            kept = {name: value for name, value in config.items() if name not in _OF_TRANSFER}
            row = json.dumps([config["objective"].removeprefix(PREFIX), kept], sort_keys=True)
            own.setdefault(row, {})[config["transfer"]] = float(group["test_top1"])
    names = list(dict.fromkeys(name for found in own.values() for name in found))
    rows = [*_ours(own, names), *_published(names)]
    return DataFrame(rows, columns=["Method", *names, "Average", "Settings", "Source"] if rows else None)


def _ours(own: Mapping[str, Mapping[str, float]], names: list[str]) -> Iterator[tuple[Any, ...]]:
    parsed = [json.loads(row) for row in own]
    values: dict[str, set[str]] = {}
    for _, config in parsed:
        for name, value in config.items():
            values.setdefault(name, set()).add(json.dumps(value))
    differ = [name for name, found in values.items() if len(found) > 1]
    for (method, config), found in zip(parsed, own.values(), strict=True):
        settings = ", ".join(f"{name} {cell_value(config.get(name))}" for name in differ)
        figures = [found.get(name) for name in names]
        whole = None if any(pd.isna(value) for value in figures) else pd.Series(figures).mean()
        yield (method, *figures, whole, settings, "neq, test split")


def _published(names: list[str]) -> Iterator[tuple[Any, ...]]:
    table = published_transfers()
    if not any(name in row.top1 for row in table.values() for name in names):
        return
    for method, row in table.items():
        yield (method, *(row.top1.get(name) for name in names), row.average, "", row.source)


register_sheet(TITLE, transfers)
