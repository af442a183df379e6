"""The table of the compression benchmark, in Markdown, from nothing but recorded results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.transfer_report import Report, machines
from benchmarks.transfer_table import markdown

Run = dict[str, Any]


def table(report: Report) -> str:
    """Size, time and accuracy by method, means over runs; accuracies by data set."""
    if not report.runs:
        return f"{report.path} holds no results yet"
    sets = list(dict.fromkeys(run["root"] for run in report.runs))
    methods = list(dict.fromkeys(map(_label, sorted(report.runs, key=lambda run: run["method"]))))
    heads = ["method", "parameters", "MACs", "MB packed", "ms"]
    heads += [f"{name}: before, after, fine-tuned %" for name in sets]
    lines = markdown(heads, [_row(name, sets, report.runs) for name in methods])
    seeds = ", ".join(map(str, sorted({run["seed"] for run in report.runs})))
    networks = ", ".join(dict.fromkeys(run["network"] for run in report.runs))
    note = (
        f"{networks}, seeds {seeds}, {len(report.runs)} results, on {machines(report.runs)}. Sizes and times "
        "are shares of the original's: parameters, MACs, a file in which zeros take one bit, and the median "
        "time of one image with one thread. Test top-1 of the original, right after compression with batch "
        "norms measured anew, and after fine-tuning for the epochs in brackets, where it says so distilled "
        "from the original."
    )
    return "\n".join([*lines, "", note])


def key_of(run: Run) -> tuple[str, int, str, int, bool]:
    """What one result is of: images, seed, method, epochs of fine-tuning, and whether it was distilled."""
    return run["root"], run["seed"], run["method"], run["epochs"], run.get("distilled", False)


def _label(run: Run) -> str:
    distilled = ", distilled" if run.get("distilled") else ""
    return f"{run['method']} [{run['epochs']}{distilled}]"


def _row(method: str, sets: Sequence[str], runs: Sequence[Run]) -> list[str]:
    mine = [run for run in runs if _label(run) == method]
    return [
        method,
        _share(mine, lambda run: [size["parameters"] for size in run["sizes"]]),
        _share(mine, lambda run: [size["macs"] for size in run["sizes"]]),
        _share(mine, lambda run: [size["packed_bytes"] for size in run["sizes"]]),
        _share(mine, lambda run: run["milliseconds"]),
        *(_accuracies([run for run in mine if run["root"] == name]) for name in sets),
    ]


def _share(runs: Sequence[Run], figures: Callable[[Run], Sequence[float]]) -> str:
    """The mean of the compressed network's figure over the original's."""
    shares = [after / before for before, after in map(figures, runs)]
    return f"{statistics.fmean(shares):.2f}"


def _accuracies(runs: Sequence[Run]) -> str:
    means = (statistics.fmean(run[key] for run in runs) for key in ("before", "after", "fine_tuned") if runs)
    return ", ".join(f"{mean:.1f}" for mean in means) or "-"
