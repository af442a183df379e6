"""One pandas DataFrame of runs, a row a run: what tables, the Excel book and pictures are made from."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame, Series

from neq.config import Config, data_title, network, read_yaml
from neq.results.runs_of_sweep import SEED, Files, collect, key_of, run_key, settings_of
from neq.results.verdicts import Checks
from neq.runs.environment import Environment
from neq.runs.layout import CONFIG
from neq.runs.metrics import summary_metrics
from neq.runs.run_reader import Run, number
from neq.utils.atomic_files import atomic_file, write_text
from neq.utils.errors import UserError

# Columns beside the settings and the metrics of summary.json.
FIGURES = ("best_epoch", "budget_amount", "trained_biases", "trained_norms", "trained_head", "skipped_images")
CHECKED = ("test_top1_again", "test_top1_difference")
# Of the environment; a run that was resumed in another one has `1 -> 2`.
ENVIRONMENT = (
    *("threads", "processes", "device_name", "cpu_capability", "torch", "torchvision", "cuda", "neq"),
    "commit",
)
TEXTS = (
    *("data_set", "state", "reason", "peak_memory_kind", "device"),
    *(*ENVIRONMENT, "folder", "copies", "evaluation"),
)

CHANGED = " -> "

Value = str | int | float | bool | None
Record = dict[str, Any]


def runs(
    sweep_files: Files, runs_dir: str | os.PathLike[str] = "runs", config_file: str | None = None
) -> DataFrame:
    """The runs of sweep files, a row a run or a cell without one, in the order of the files and their cells.

    Args:
        sweep_files: in W&B's format.
        runs_dir: the folder of all runs, searched recursively.
        config_file: the configuration that cells start from unless their file's command names one.

    Returns:
        Columns: every setting that can change a result, by its key (`net_name`, `neuron_selection`, `ratio`,
        ...; lists as JSON); `seed`; `state` (done, unfinished, damaged, missing) and `reason`; `epochs`,
        `best_epoch`, `budget_amount` (in `budget_unit`); the metrics of summary.json in their units there
        (`test_top1` in per cent, `step_seconds`, `saved_bytes`, ...); the environment (`device`, `threads`,
        `torch`, `commit`, ...); `folder`; `data_set`, the name of their folder where images are one's own,
        else `dataset`. `setting` is the same text for runs that differ in nothing but their seed, `key`
        identifies the run.

    Raises:
        UserError: a sweep file is not valid, or a file or folder cannot be read.
    """
    return frame(collect(sweep_files, runs_dir, config_file))


def frame(runs: Iterable[Run], checks: Checks | None = None) -> DataFrame:
    """The DataFrame of runs; see `runs`.

    Args:
        runs: as of `collect`.
        checks: of best networks that were evaluated again, by `run_key`.
    """
    return of_records([_record(run, checks or {}) for run in runs])


def of_records(records: Sequence[Record]) -> DataFrame:
    """The DataFrame of rows.

    Args:
        records: of each row, its `key`, its `epochs`, and what else is known of `known_columns`.
    """
    keys = [one["key"] for one in records]
    every = [json.loads(key) for key in keys]
    settings = [settings_of_key(key) for key in keys]
    names = dict.fromkeys(name for one in (settings_of_key("{}"), *settings) for name in one)
    columns = {name: _setting_column([one.get(name) for one in settings]) for name in names}
    columns["seed"] = Series([named[SEED] for named in every], dtype="int64")
    columns["epochs"] = Series([one["epochs"] for one in records], dtype="int64")
    for name in (*FIGURES, *summary_metrics(), *CHECKED):
        columns[name] = Series([number(one.get(name)) for one in records], dtype="float64")
    for name in TEXTS:
        columns[name] = Series([_text(one.get(name)) for one in records], dtype="string")
    columns["data_set"] = columns["data_set"].fillna(columns["dataset"].astype("string"))
    columns["setting"] = Series([key_of(named, SEED) for named in every], dtype="string")
    columns["key"] = Series(keys, dtype="string")
    return DataFrame(columns)


def known_columns() -> tuple[str, ...]:
    """The columns that do not follow from a run's key: of its record and of its evaluation."""
    return ("key", "epochs", *FIGURES, *summary_metrics(), *CHECKED, *TEXTS)


def settings_of_key(key: str) -> dict[str, Any]:
    """The settings that a `key` or a `setting` stands for, defaults included, without the seed."""
    return {name: value for name, value in settings_of(json.loads(key)).items() if name != SEED}


def cell_value(value: Any) -> Value:
    """A setting as a table shows it: lists and mappings as JSON."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _record(run: Run, checks: Checks) -> Record:
    summary = run.summary or {}
    beside = summary.get("trained_beside_max")
    beside = beside if isinstance(beside, dict) else {}
    check = checks.get(run_key(run))
    return {
        **{name: summary.get(name) for name in known_columns()},
        "key": run_key(run),
        "data_set": _data_set(run),
        "state": run.state,
        "reason": run.reason or None,
        "epochs": run.epochs,
        "budget_amount": _budget(run),
        **{f"trained_{kind}": beside.get(kind) for kind in ("biases", "norms", "head")},
        **{name: _environment(run.environments, name) for name in ENVIRONMENT},
        "folder": run.place or None,
        "copies": "; ".join(run.copies) or None,
        "test_top1_again": None if check is None else check.top1,
        "test_top1_difference": None if check is None else check.difference,
        "evaluation": None if check is None else check.verdict,
    }


def _data_set(run: Run) -> str | None:
    """What titles call the images of a run; none where it is the data set's name."""
    if run.folder is None or run.identity.get("dataset") not in ("image_folder", "npz"):
        return None
    try:
        settings = read_yaml(run.folder / CONFIG)["data_provider"]
        assert isinstance(settings, dict)
        return data_title(str(settings["dataset"]), str(settings["root"]))
    except (UserError, LookupError, AssertionError, RuntimeError):
        return None


def _environment(environments: Sequence[Environment], name: str) -> str | None:
    """A field of a run's environments: one value, or those that it had one after another."""
    values: list[str] = []
    for one in environments:
        value = getattr(one, name)
        text = "" if value is None else str(value)
        if name == "commit" and text:
            text = text[:12] + (" modified" if one.modified else "")
        if text and values[-1:] != [text]:
            values.append(text)
    return CHANGED.join(values) or None


def _budget(run: Run) -> float | None:
    """The most that may be updated, as the run counted it, or as its settings define it."""
    counted = number((run.summary or {}).get("budget"))
    if counted is not None:
        return counted
    config = run.config
    if config["budget"] is not None or config["budget_unit"] != Config().NEq_config.budget_unit:
        return number(config["budget"])
    try:
        total = network(config["net_name"]).total_weights
    except UserError:
        return None
    return None if total is None or config["ratio"] is None else round(min(config["ratio"], 1) * total)


def _setting_column(given: Sequence[Any]) -> Series:
    """The values of a setting in the narrowest type that holds them all, missing ones as such."""
    values = [cell_value(value) for value in given]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return Series(values, dtype="boolean")
    if kinds == {int} and all(abs(value) < 2**63 for value in values if isinstance(value, int)):
        return Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return Series([number(value) for value in values], dtype="float64")
    return Series([_text(value) for value in values], dtype="string")


def _text(value: object) -> str | None:
    """A text that every file can hold: undecodable bytes of a file's name are spelled out."""
    if value is None or value is pd.NA:
        return None
    return str(value).encode("utf-8", "backslashreplace").decode()


def write_csv(table: DataFrame, path: Path) -> None:
    """Writes a DataFrame as CSV, UTF-8, atomically; what is missing is empty."""
    write_text(path, table.to_csv(index=False))


def write_parquet(table: DataFrame, path: Path) -> None:
    """Writes a DataFrame as Parquet, atomically.

    Raises:
        ImportError: pyarrow is not installed.
    """
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    with atomic_file(path) as file:
        file.write(content.getvalue())
