"""Runs grouped over their seeds: a row a setting, and which settings are compared with which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from pandas import DataFrame, Series

from neq.config.policies import POLICIES
from neq.results.frame import (
    CHANGED,
    ENVIRONMENT,
    cell_value,
    known_columns,
    settings_of_key,
)
from neq.results.runs_of_sweep import SEED, key_of
from neq.results.verdicts import AS_RECORDED, DIFFERS, NOT_MEASURED
from neq.runs.metrics import cost_metrics, summary_metrics

LISTS = ("n_bias_update", "manual_weight_idx", "weight_update_ratio")
# A method, and what bounds it; settings that share all others are compared with one another.
OF_METHOD = ("neuron_selection", "initialization", *LISTS)
OF_BUDGET = ("scheme", "ratio", "budget", "budget_unit", "unit", "cost_aware", "velocity_mu", "velocity_rule")
# Settings that every table has a column of.
ALWAYS_SHOWN = (
    *("net_name", "scheme", "initialization", "neuron_selection", "dataset", "norm_mode", "budget_unit"),
    "budget",
)
# These usually follow from data set, scheme and budget; they are shown where they do not.
FOLLOWING = ("new_num_classes", "mean_std", "ratio", *LISTS)

# In the name of a series: shorter names of settings, and the characters of a value.
SHORT = {"initialization": "init", "norm_mode": "norms"}
LONGEST_NAME = 16


def groups(runs: DataFrame) -> DataFrame:
    """A row a setting, over its seeds, sorted so that settings to be compared stand together.

    Args:
        runs: as of `neq.results.runs`.

    Returns:
        The index is `setting`. Columns: the settings; `budget_amount`; `seeds_done` and `seeds_expected`; of
        every figure NAME the mean over the seeds that are done and have it (`NAME`), the standard deviation
        with n - 1 (`NAME_std`, missing for one seed) and the number of values (`NAME_count`); of every cost
        `NAME_ratio`, over that of the baseline: everything updated, other settings equal; `is_best`: the best
        test top-1 of several policies under one budget; `device` and `peak_memory_kind`, joined where they
        differ; `data_set` as of `runs`; `environment`, the fields in which the environments of the seeds
        differ; `evaluation`, where every seed was evaluated again.
    """
    settings = [name for name in runs.columns if name not in (*known_columns(), "seed", "setting")]
    table = runs.drop_duplicates("setting").set_index("setting")[settings]
    finished = runs[runs["state"] == "done"]
    done = finished.groupby("setting", sort=False)
    amount = done["budget_amount"].first().reindex(table.index)
    table["budget_amount"] = amount.fillna(runs.groupby("setting")["budget_amount"].first())
    table["seeds_done"] = done.size().reindex(table.index, fill_value=0)
    table["seeds_expected"] = runs.groupby("setting").size()
    figures = done[["best_epoch", "epochs", *summary_metrics()]]
    parts = [table, figures.mean(), figures.std().add_suffix("_std"), figures.count().add_suffix("_count")]
    texts = done[["device", "peak_memory_kind"]].agg(_joined) if len(finished) else None
    table = pd.concat([part.reindex(table.index) for part in (*parts, texts) if part is not None], axis=1)
    own = runs[runs["data_set"] != runs["dataset"]].groupby("setting")["data_set"].first()
    table["data_set"] = own.reindex(table.index).fillna(table["dataset"].astype("string"))
    table["environment"] = _environments(finished).reindex(table.index)
    table["evaluation"] = done["evaluation"].agg(_verdict) if len(finished) else None
    return _compared(table)


def _joined(values: Series) -> str:
    return ", ".join(sorted(set(values.dropna())))


def _environments(finished: DataFrame) -> Series:
    """By setting: `threads: 1, 2; torch: ...` where its seeds were computed in several environments."""
    lines: dict[str, str] = {}
    for setting, seeds in finished.groupby("setting", sort=False):
        fields = {name: list(dict.fromkeys(seeds[name].dropna())) for name in ("device", *ENVIRONMENT)}
        parts = [
            f"{name}: {', '.join(values)}"
            for name, values in fields.items()
            if len(values) > 1 or any(CHANGED in value for value in values)
        ]
        if parts:
            lines[setting] = "; ".join(parts)
    return Series(lines, dtype="string")


def _verdict(verdicts: Series) -> str | None:
    """The evaluations of a setting's seeds in one line; none unless all were evaluated again."""
    if verdicts.isna().any():
        return None
    differing = int(verdicts.str.startswith(DIFFERS).sum())
    unmeasured = int(verdicts.str.startswith(NOT_MEASURED).sum())
    verb = "differs" if differing == 1 else "differ"
    parts = [f"{differing} of {len(verdicts)} {verb}"] if differing else []
    parts += [f"{unmeasured} not measured"] if unmeasured else []
    return ", ".join(parts) or AS_RECORDED


def _compared(table: DataFrame) -> DataFrame:
    """Sorted, with the columns that compare a setting with others."""
    settings = {key: settings_of_key(key) for key in table.index}
    order = sorted(table.index, key=lambda key: _order(settings[key], table.at[key, "budget_amount"]))
    table = table.loc[order].copy()
    rest = Series([rest_of(settings[key]) for key in order], index=table.index, dtype="string")
    is_whole = table["selected_parameters_max"] == table["selectable_parameters"]
    # Of several, one that is the same in all epochs; then the last policy in order.
    is_same = table["initialization"] == table["neuron_selection"]
    whole = table[is_whole].assign(rest=rest, same=is_same).sort_values("same", kind="stable")
    baseline = whole.drop_duplicates("rest", keep="last").set_index("rest")
    for cost in cost_metrics():
        ratio = table[cost] / rest.map(baseline[cost]).astype("float64")
        table[f"{cost}_ratio"] = ratio.where(ratio.abs() != float("inf"))
    bounds = rest + Series(
        [key_of({name: settings[key][name] for name in ("budget_unit", "budget", "ratio")}) for key in order],
        index=table.index,
        dtype="string",
    )
    rated = table[table["test_top1"].notna()]
    same = rated.groupby(bounds)
    is_best = rated["test_top1"] == same["test_top1"].transform("max")
    is_best &= same["neuron_selection"].transform("nunique") > 1
    table["is_best"] = is_best.reindex(table.index, fill_value=False).astype(bool)
    return table


def _order(settings: Mapping[str, Any], amount: float) -> tuple[Any, ...]:
    return (
        *(str(settings[name]) for name in ("dataset", "net_name")),
        rest_of(settings),
        str(settings["budget_unit"]),
        -1 if pd.isna(amount) else amount,
        *policy_rank(str(settings["neuron_selection"])),
        str(settings["initialization"]),
        key_of(settings, SEED),
    )


def policy_rank(name: str) -> tuple[int, str]:
    """Where a policy stands among others: in the order of the registry, unknown ones after it by name."""
    order = list(POLICIES)
    return (order.index(name) if name in POLICIES else len(order)), name


def rest_of(settings: Mapping[str, Any]) -> str:
    """The settings that two rows share if they differ in method and budget only, as a canonical text."""
    left = {*OF_METHOD, *OF_BUDGET, SEED}
    return key_of({name: value for name, value in settings.items() if name not in left})


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the settings that are not the same in all of several mappings, in their order.

    Args:
        settings: JSON values by name; a missing name counts as None.
    """
    several = list(settings)
    names = dict.fromkeys(name for one in several for name in one)
    return [name for name in names if len({key_of({"": one.get(name)}) for one in several}) > 1]


def varying_settings(table: DataFrame) -> list[str]:
    """The settings that rows differ in beside those that every table shows, in the order of the schema.

    Args:
        table: rows of `groups`.
    """
    several = [settings_of_key(key) for key in table.index]
    shown = [
        key_of(
            {**{name: one.get(name) for name in ALWAYS_SHOWN}, "budget": None if pd.isna(amount) else amount}
        )
        for one, amount in zip(several, table["budget_amount"], strict=True)
    ]
    return [
        name
        for name in differing(several)
        if name not in (*ALWAYS_SHOWN, SEED)
        and not (name in FOLLOWING and _follows([one.get(name) for one in several], shown))
    ]


def _follows(values: Sequence[Any], shown: Sequence[str]) -> bool:
    """Whether a setting is the same wherever what is shown is."""
    known: dict[str, str] = {}
    return all(
        known.setdefault(key, key_of({"": value})) == key_of({"": value})
        for key, value in zip(shown, values, strict=True)
    )


def series_names(table: DataFrame) -> list[str]:
    """A name for every row: its policy, and the settings beside the budget in which rows differ.

    Two rows of one name differ in their budget alone, whatever their policies are. The initialization is
    named only where a policy comes with several.

    Args:
        table: rows of `groups` of one data set and network.
    """
    several = [settings_of_key(key) for key in table.index]
    beside = {"dataset", "net_name", "budget_unit", "budget", "ratio", "scheme", *LISTS, "neuron_selection"}
    names = sorted(set(differing(several)) - beside - {SEED})
    shown = {name: _shortened([one.get(name) for one in several]) for name in names}
    starts: dict[str, set[str]] = {}
    for one in several:
        starts.setdefault(str(one["neuron_selection"]), set()).add(str(one["initialization"]))
    found = []
    for at, one in enumerate(several):
        policy = str(one["neuron_selection"])
        named = [name for name in names if name != "initialization" or len(starts[policy]) > 1]
        found.append(", ".join([policy, *(f"{SHORT.get(name, name)} {shown[name][at]}" for name in named)]))
    return found


def _shortened(values: Sequence[Any]) -> list[str]:
    """Values as texts, long ones cut unless that would make two of them equal."""
    texts = [str(cell_value(value)) for value in values]
    short = [text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…" for text in texts]
    return short if len(set(short)) == len(set(texts)) else texts
