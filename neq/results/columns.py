"""The columns of the sheets Summary and Runs, from the DataFrames of runs and of groups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from pandas import DataFrame

from neq.config.keys import KEYS
from neq.results.excel import Column
from neq.results.frame import Value
from neq.results.grouping import ALWAYS_SHOWN, varying_settings
from neq.results.runs_of_sweep import SEED
from neq.runs.metrics import Metric, cost_metrics, summary_metrics

COUNT, POINTS, SHARE = "#,##0", "0.00", "0.000"
# Recorded unit -> the unit that tables show, what one of it is in the recorded one, its number format.
UNITS = {
    "%": (" (%)", 1, POINTS),
    "s": (" (ms)", 1e-3, POINTS),
    "bytes": (" (MiB)", 2**20, "#,##0.00"),
    "count": ("", 1, COUNT),
    "": ("", 1, "0.0000"),
}
STORED, METHOD, TEST, STATE, EVALUATION = (
    *("Run (neq)", "Method", "test/top1 at valid/best (%)", "State", "Evaluation"),
)
MIXED = "Environments differ"
# Fields of the environment.
HEADERS = {
    "threads": "Threads", "processes": "Processes", "device_name": "Device name",
    "cpu_capability": "CPU capability", "torch": "torch", "torchvision": "torchvision", "cuda": "CUDA",
    "neq": "neq", "commit": "Commit of neq",
}  # fmt: skip
FIRST = (
    Column("Model", "net_name"), Column("Scheme", "scheme"),
    Column("Budget", "budget_amount", COUNT, width=12), Column("Initialization", "initialization"),
    Column(METHOD, "neuron_selection", width=10),
)  # fmt: skip
DATA = (
    Column("Dataset", "data_set"),
    Column("Norm mode", "norm_mode"),
    Column("Budget unit", "budget_unit", width=12),
)
PLACED = (
    "val_top1",
    "val_loss",
    "test_top1",
    "budget_used_max",
    "selected_parameters_max",
    "selectable_parameters",
)


def figure(key: str, suffix: str = "", header: str = "", number_format: str = "") -> Column:
    """The column of a metric.

    Args:
        key: its name in summary.json.
        suffix: of the DataFrame's column: "", "_std".
        header: instead of its own, without the unit.
        number_format: instead of that of its unit.
    """
    metric = summary_metrics()[key]
    unit, scale, usual = UNITS[metric.unit]
    return Column((header or metric.header) + unit, key + suffix, number_format or usual, scale)


def summary_columns(table: DataFrame) -> list[Column]:
    """The columns of Summary: the published ones in their order, settings, counts, deviations, costs.

    Args:
        table: as of `groups`.
    """
    epoch = Column("valid/best at epoch", "best_epoch", "0.0")
    columns = [*FIRST, figure("val_top1"), epoch, figure("test_top1")]
    columns += [
        Column("Average Stopping Epoch", "last_epoch", "0.0"),
        *DATA,
        *_settings(varying_settings(table)),
    ]
    columns += [Column("Seeds done", "seeds_done", "0"), Column("Seeds expected", "seeds_expected", "0")]
    columns += [
        figure("val_top1", "_std", "valid/best std, n-1"),
        figure("test_top1", "_std", "test/top1 std, n-1"),
    ]
    for key, metric in _further():
        columns += [figure(key), figure(key, "_std", f"{metric.header} std, n-1")]
    columns += [figure("selected_parameters_max"), figure("selectable_parameters")]
    for key, metric in cost_metrics().items():
        columns += [_cost(key), Column(f"{metric.header} / baseline", f"{key}_ratio", SHARE)]
    further = (Column(MIXED, "environment"), Column(EVALUATION, "evaluation"))
    return columns + [column for column in further if table[column.key].notna().any()]


def runs_columns(runs: DataFrame) -> list[Column]:
    """The columns of Runs.

    Args:
        runs: as of `frame`.
    """
    columns = [*FIRST, Column("Seed", "seed", "0"), Column(STATE, "state"), Column("Reason", "reason")]
    columns += [figure("val_top1"), Column("valid/best at epoch", "best_epoch", "0"), figure("test_top1")]
    columns += [figure("val_loss"), *(figure(key) for key, _ in _further()), Column("Epochs", "epochs", "0")]
    columns += [*DATA, *_settings(_settings_of_runs(map(json.loads, runs["key"])))]
    columns += [
        figure(key) for key in ("budget_used_max", "selected_parameters_max", "selectable_parameters")
    ]
    columns += [
        Column(f"Trained beside: {kind}", f"trained_{kind}", COUNT) for kind in ("biases", "norms", "head")
    ]
    columns += [*map(_cost, cost_metrics()), Column("Peak memory is", "peak_memory_kind")]
    columns += [Column("Device", "device"), *(Column(header, key) for key, header in HEADERS.items())]
    columns += [Column("Images left out", "skipped_images", COUNT)]
    columns += [Column("Run", "folder"), Column("The same run lies in", "copies")]
    if runs["evaluation"].notna().any():
        columns += [Column("test/top1 measured again (%)", "test_top1_again", POINTS)]
        columns += [Column("Difference (points)", "test_top1_difference", POINTS)]
        columns += [Column(EVALUATION, "evaluation")]
    return [*columns, Column(STORED, "stored", width=14, hidden=True)]


def _settings_of_runs(named: Iterable[Mapping[str, Any]]) -> list[str]:
    """The settings that some run does not have at its default, in the order of the schema.

    Args:
        named: the settings in the keys of runs.
    """
    names = dict.fromkeys(name for one in named for name in one)
    places = {name: at for at, name in enumerate(KEYS)}
    return sorted(
        (name for name in names if name not in ALWAYS_SHOWN and name != SEED),
        key=lambda name: places.get(name, len(places)),
    )


def further_columns(table: DataFrame) -> list[Column]:
    """The columns of a further sheet: those of a DataFrame, by its headers."""
    return [
        Column(header, header, COUNT if pd.api.types.is_integer_dtype(table[header]) else POINTS)
        for header in table.columns
    ]


def summary_rows(table: DataFrame) -> list[dict[str, Value]]:
    """The rows of Summary: a mean is empty where a seed that is done lacks the figure.

    Args:
        table: as of `groups`.
    """
    shown = table.assign(last_epoch=table["epochs"] - 1)
    for key in summary_metrics():
        is_whole = table[f"{key}_count"] == table["seeds_done"]
        for name in (key, f"{key}_std", *([f"{key}_ratio"] if f"{key}_ratio" in table else [])):
            shown[name] = table[name].where(is_whole)
    return rows_of(shown.reset_index())


def rows_of(table: DataFrame) -> list[dict[str, Value]]:
    """The rows of a DataFrame as plain values, without those that are missing."""
    values = {name: table[name].astype(object).tolist() for name in table.columns}
    missing = {name: table[name].isna().tolist() for name in table.columns}
    return [
        {name: _whole(column[at]) for name, column in values.items() if not missing[name][at]}
        for at in range(len(table))
    ]


def _whole(value: Any) -> Value:
    """A whole number as an int, so that a cell shows 3 and not 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _settings(names: Iterable[str]) -> list[Column]:
    return [Column(name, name, most=18) for name in names]


def _further() -> list[tuple[str, Metric]]:
    """Metrics that have no place of their own."""
    return [
        (key, metric) for key, metric in summary_metrics().items() if key not in PLACED and not metric.is_cost
    ]


def _cost(key: str) -> Column:
    return figure(key, number_format=COUNT if key == "peak_memory_bytes" else "")
