"""The rows of the book: what its sheets Summary and Runs say of runs, before anything is written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neq.config import Config, network
from neq.results.check import Check, Checks
from neq.results.collect import SEED, Group, Run, differing, key_of, settings_of
from neq.runs.run_reader import number
from neq.utils.errors import UserError

MIB = 2**20
KEY = "Key (neq)"
METHOD, TEST, TEST_STD = "Method", "test/top1 at valid/best (%)", "test/top1 std, n-1 (%)"
VALID, VALID_STD = "valid/best (%)", "valid/best std, n-1 (%)"
MODEL, SCHEME, BUDGET, UNIT, DATASET = "Model", "Scheme", "Budget", "Budget unit", "Dataset"
SEEDS_DONE, STATE = "Seeds done", "State"
AGAIN, DIFFERENCE, EVALUATION = "test/top1 measured again (%)", "Difference (points)", "Evaluation"
STEP, SAVED, PEAK = "Step time (ms)", "Saved bytes (MiB)", "Peak memory (MiB)"
COSTS = {STEP: "Step time / baseline", SAVED: "Saved bytes / baseline", PEAK: "Peak memory / baseline"}
SELECTED, SELECTABLE = "Selected parameters", "Selectable parameters"
# Settings with a column of their own name in every table.
IN_COLUMNS = {
    "net_name": MODEL, "scheme": SCHEME, "initialization": "Initialization", "neuron_selection": METHOD,
    "dataset": DATASET, "norm_mode": "Norm mode", "budget_unit": UNIT, "budget": BUDGET,
}  # fmt: skip
LISTS = ("n_bias_update", "manual_weight_idx", "weight_update_ratio")
# What follows from data set, scheme and budget, as a rule: told where it does not.
FOLLOWING = ("new_num_classes", "mean_std", "ratio", *LISTS)
# What a method consists of, and what bounds it; two rows that share the rest are held against each other.
OF_METHOD = ("neuron_selection", "initialization", *LISTS)
OF_BUDGET = ("scheme", "ratio", "budget", "budget_unit", "unit", "cost_aware", "velocity_mu", "velocity_rule")
METHODS = ("SU", "velocity", "random", "full")

Value = str | int | float | None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        key: the settings that it is of, as JSON; rows of one key are the same row.
        settings: the same with defaults filled in, leaf -> JSON value.
        cells: header -> value; what is not known is missing or None.
    """

    key: str
    settings: Mapping[str, Any]
    cells: dict[str, Value]


def run_key(run: Run) -> str:
    """The key of a run in the sheet Runs."""
    return key_of({**run.values, SEED: run.seed})


def settings_of_key(key: object) -> dict[str, Any] | None:
    """The settings that a key stands for; none where it is none of ours."""
    try:
        said = json.loads(str(key))
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    return {name: value for name, value in settings_of(said).items() if name != SEED or SEED in said}


def summary_rows(groups: Iterable[Group], checks: Checks | None = None) -> list[Row]:
    """A row a group; means are over the seeds that are done, in the units of the headers.

    Args:
        checks: of runs that were measured again, by `run_key`; none: no run was.
    """
    rows = [Row(key_of(group.values), group.config, _summary_cells(group, checks)) for group in groups]
    return sorted(rows, key=lambda row: order(row.settings, row.cells))


def run_rows(runs: Iterable[Run], checks: Checks | None = None) -> list[Row]:
    """A row a run, or a cell without one.

    Args:
        checks: as of `summary_rows`.
    """
    rows = [Row(run_key(run), run.config, _run_cells(run, checks)) for run in runs]
    return sorted(rows, key=lambda row: (*order(row.settings, row.cells), row.settings[SEED]))


def order(settings: Mapping[str, Any], cells: Mapping[str, Value]) -> tuple[Any, ...]:
    """What rows are sorted by: what is held against each other stands together."""
    budget, method = number(cells.get(BUDGET)), settings["neuron_selection"]
    return (
        *(str(settings[name]) for name in ("dataset", "net_name")),
        rest_of(settings),
        str(settings["budget_unit"]),
        -1 if budget is None else budget,
        METHODS.index(method) if method in METHODS else len(METHODS),
        str(settings["initialization"]),
        key_of(settings, SEED),
    )


def rest_of(settings: Mapping[str, Any], *without: str) -> str:
    """What two rows share that differ in method and budget only."""
    left = {*OF_METHOD, *OF_BUDGET, SEED, *without}
    return key_of({name: value for name, value in settings.items() if name not in left})


def same_budget(settings: Mapping[str, Any]) -> str:
    """What two rows share that differ in their method only; a scheme is a name for its budget."""
    return rest_of(settings) + key_of({name: settings[name] for name in ("budget_unit", "budget", "ratio")})


def varying_settings(rows: Sequence[Row]) -> list[str]:
    """The settings that rows differ in and no column of its own tells, in the order of the schema."""
    return [
        name
        for name in differing(row.settings for row in rows)
        if name not in IN_COLUMNS and name != SEED and not (name in FOLLOWING and _follows(name, rows))
    ]


def _follows(name: str, rows: Sequence[Row]) -> bool:
    """Whether a setting is the same wherever the columns are."""
    known: dict[str, str] = {}
    for row in rows:
        columns = key_of({header: row.cells.get(header) for header in IN_COLUMNS.values()})
        value = key_of({"": row.settings.get(name)})
        if known.setdefault(columns, value) != value:
            return False
    return True


def setting_value(value: Any) -> Value:
    """A setting as a cell shows it; true, false and lists as JSON."""
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value)


def own_settings(settings: Mapping[str, Any], cells: Mapping[str, Value]) -> dict[str, Value]:
    """The columns of settings that every table has; a budget is the amount where it is known."""
    told = {header: setting_value(settings[name]) for name, header in IN_COLUMNS.items() if name != "budget"}
    return {**told, BUDGET: cells.get(BUDGET)}


def _budget(config: Mapping[str, Any], done: Sequence[Run]) -> Value:
    """The most that may be updated, as the runs counted it, or as the settings tell it."""
    for run in done:
        assert run.summary is not None
        if (counted := number(run.summary.get("budget"))) is not None:
            return counted
    if config["budget"] is not None or config["budget_unit"] != Config().NEq_config.budget_unit:
        return setting_value(config["budget"])
    try:
        total = network(config["net_name"]).total_weights
    except UserError:
        return None
    return None if total is None or config["ratio"] is None else round(min(config["ratio"], 1) * total)


def _summary_cells(group: Group, checks: Checks | None) -> dict[str, Value]:
    done = group.done

    def mean(name: str, divided_by: float = 1) -> float | None:
        return _over_seeds(done, name, lambda values: statistics.fmean(values) / divided_by, 1)

    def deviation(name: str) -> float | None:
        return _over_seeds(done, name, statistics.stdev, 2)

    cells = own_settings(group.config, {BUDGET: _budget(group.config, done)})
    last = mean("epochs")
    cells |= {
        VALID: mean("val_top1"),
        "valid/best at epoch": mean("best_epoch"),
        TEST: mean("test_top1"),
        "Average Stopping Epoch": None if last is None else last - 1,
        SEEDS_DONE: group.seeds_done,
        "Seeds expected": group.seeds_expected,
        VALID_STD: deviation("val_top1"),
        TEST_STD: deviation("test_top1"),
        SELECTED: mean("selected_parameters_max"),
        SELECTABLE: mean("selectable_parameters"),
        STEP: mean("step_seconds", 1e-3),
        SAVED: mean("saved_bytes", MIB),
        PEAK: mean("peak_memory_bytes", MIB),
    }
    if checks is not None:
        cells[EVALUATION] = _evaluation([checks[key] for run in done if (key := run_key(run)) in checks])
    return cells


def _evaluation(checks: Sequence[Check]) -> str | None:
    differing = sum(check.differs for check in checks)
    unmeasured = sum(check.top1 is None for check in checks)
    parts = [f"{differing} of {len(checks)} {'differs' if differing == 1 else 'differ'}"] if differing else []
    parts += [f"{unmeasured} not measured"] if unmeasured else []
    return ", ".join(parts) or ("as recorded" if checks else None)


def _over_seeds(
    done: Sequence[Run], name: str, count: Callable[[list[float]], float], least: int
) -> float | None:
    """A figure over seeds; none where a seed lacks it, or where there are too few."""
    values = [number((run.summary or {}).get(name)) for run in done]
    known = [value for value in values if value is not None]
    return count(known) if len(known) == len(values) >= least else None


def _run_cells(run: Run, checks: Checks | None) -> dict[str, Value]:
    summary = run.summary or {}

    def figure(name: str, divided_by: float = 1) -> float | None:
        value = number(summary.get(name))
        return value if value is None or divided_by == 1 else value / divided_by

    cells = own_settings(run.config, {BUDGET: _budget(run.config, [run] if run.summary else [])})
    beside = summary.get("trained_beside_max")
    beside = beside if isinstance(beside, dict) else {}
    cells |= {
        "Seed": run.seed,
        STATE: run.state,
        "Reason": run.reason or None,
        VALID: figure("val_top1"),
        "valid/best at epoch": figure("best_epoch"),
        TEST: figure("test_top1"),
        "valid/loss at valid/best": figure("val_loss"),
        "Epochs": run.epochs,
        "Budget used": figure("budget_used_max"),
        SELECTED: figure("selected_parameters_max"),
        SELECTABLE: figure("selectable_parameters"),
        **{f"Trained beside: {kind}": number(beside.get(kind)) for kind in ("biases", "norms", "head")},
        STEP: figure("step_seconds", 1e-3),
        SAVED: figure("saved_bytes", MIB),
        PEAK: figure("peak_memory_bytes", MIB),
        "Peak memory is": _text(summary.get("peak_memory_kind")),
        "Device": _text(summary.get("device")),
        "Images left out": figure("skipped_images"),
        "Run": run.place or None,
        "The same run lies in": "; ".join(run.copies) or None,
    }
    check = None if checks is None else checks.get(run_key(run))
    if check is not None:
        difference = (
            None if check.top1 is None or check.recorded is None else round(check.top1 - check.recorded, 6)
        )
        cells |= {AGAIN: check.top1, DIFFERENCE: difference, EVALUATION: check.said}
    return cells


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def add_ratios(rows: Sequence[Row]) -> None:
    """Fills in every row's costs over those of its baseline: everything updated, the other settings equal."""
    baselines: dict[str, Row] = {}
    for row in rows:
        whole = number(row.cells.get(SELECTED)) == number(row.cells.get(SELECTABLE)) is not None
        if row.settings["neuron_selection"] == "full" and whole and row.cells.get(SEEDS_DONE):
            rest = rest_of(row.settings)
            if rest not in baselines or row.settings["initialization"] == "full":
                baselines[rest] = row
    for row in rows:
        baseline = baselines.get(rest_of(row.settings))
        for cost, header in COSTS.items():
            ours = number(row.cells.get(cost))
            theirs = None if baseline is None else number(baseline.cells.get(cost))
            row.cells[header] = None if ours is None or not theirs else ours / theirs


def best_rows(rows: Sequence[Row]) -> set[str]:
    """The keys of the rows whose method does best on the test set, among methods under the same budget."""
    figures: dict[str, dict[str, float]] = {}
    methods: dict[str, set[str]] = {}
    for row in rows:
        top1 = number(row.cells.get(TEST))
        if top1 is not None:
            figures.setdefault(same_budget(row.settings), {})[row.key] = top1
            methods.setdefault(same_budget(row.settings), set()).add(str(row.cells.get(METHOD)))
    compared = [same for place, same in figures.items() if len(methods[place]) > 1]
    return {key for same in compared for key, top1 in same.items() if top1 == max(same.values())}
