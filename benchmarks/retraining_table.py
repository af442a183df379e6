"""The tables of the retraining benchmark, in Markdown, from nothing but recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.transfer_report import Report, machines
from benchmarks.transfer_table import NOTHING, markdown

REFERENCE = "full"
Run = dict[str, Any]


def tables(report: Report) -> str:
    """For each sequence what every method reached and took, and its accuracy right after each task."""
    if not report.runs:
        return f"{report.path} holds no runs yet"
    parts = []
    for sequence in dict.fromkeys(run["sequence"] for run in report.runs):
        runs = [run for run in report.runs if run["sequence"] == sequence]
        parts += [*_costs(runs), "", *_by_task(runs), "", _notes(sequence, runs, report), ""]
    return "\n".join(parts).strip()


def cells(runs: Sequence[Run]) -> Iterator[tuple[str, str, list[Run]]]:
    """Method, limit, and the runs of all seeds."""
    for method, limit in dict.fromkeys((run["method"], run["limit"]) for run in runs):
        yield method, limit, [run for run in runs if (run["method"], run["limit"]) == (method, limit)]


def _costs(runs: Sequence[Run]) -> list[str]:
    heads = [
        *("method", "limit, MiB", "trains", "images, segments", "after each task, %", "at the end, %"),
        *("source, %", "MiB predicted", "MiB taken", "full / taken", "CPU s"),
    ]
    full = max((run["used"] for run in runs if run["method"] == REFERENCE), default=None)
    return markdown(heads, [_costs_of(*cell, full) for cell in cells(runs)])


def _costs_of(method: str, limit: str, runs: Sequence[Run], full: int | None) -> list[str]:
    first = runs[0]
    allowed = first.get("limit_bytes")
    row = [method, NOTHING if allowed is None else f"{allowed / 2**20:.1f} ({limit})"]
    if not first.get("fits", True):
        return [*row, f"does not fit: its least is {_mib(first['least'])}", *[NOTHING] * 8]
    tasks = list(first["after"])
    after = [statistics.fmean(run["after"].values()) for run in runs]
    end = [statistics.fmean(run["final"][task] for task in tasks) for run in runs]
    accuracies = [_spread(after), _spread(end), _spread([run["final"]["source"] for run in runs])]
    if "used" not in first:
        return [*row, "nothing", NOTHING, *accuracies, *[NOTHING] * 4]
    used = max(run["used"] for run in runs)
    return [
        *row,
        _trains(method, first["share"]),
        _passes(first["settings"]),
        *accuracies,
        _mib(first["predicted"]),
        _mib(used),
        NOTHING if full is None else f"{full / used:.1f}",
        f"{statistics.fmean(run['cpu_seconds'] for run in runs):.0f}",
    ]


def _by_task(runs: Sequence[Run]) -> list[str]:
    trained = [cell for cell in cells(runs) if cell[2][0].get("fits", True)]
    tasks = list(trained[0][2][0]["after"])
    rows = [
        [
            named(method, limit),
            *(_spread([run["after"][task] for run in cell]) for task in tasks),
        ]
        for method, limit, cell in trained
    ]
    return markdown(["right after the task, %", *tasks], rows)


def _trains(method: str, share: float | None) -> str:
    if share is not None:
        return f"{share:.0%} of the work"
    return "norms" if method == "TENT" else "everything"


def _passes(settings: dict[str, Any]) -> str:
    images = str(settings.get("micro_batch_size", "all"))
    if (ghost := settings.get("ghost_batch_size")) is not None:
        images += f" (norms {ghost})"
    return f"{images}, {1 + len(settings.get('checkpoint_cuts', ()))}"


def _notes(sequence: str, runs: Sequence[Run], report: Report) -> str:
    settings = report.settings
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    kept = []
    for method, limit, cell in cells(runs):
        rates = sorted({run["base_lr"] for run in cell if run.get("base_lr") is not None})
        if rates:
            kept.append(f"{named(method, limit)} {', '.join(f'{rate:g}' for rate in rates)}")
    return (
        f"{sequence}: {settings['network']}, batch {settings['batch_size']}, {settings['epochs']} epochs a "
        f"task, seeds {seeds}, on {machines(runs)}. Limits are shares of the memory that full "
        "training is predicted to take. Taken: the most by which the process' resident memory rose, of all "
        f"runs. CPU s: of one pass over the sequence, evaluation included. Learning rates, of "
        f"{', '.join(f'{rate:g}' for rate in settings['rates'])} by the first task's validation photos: "
        f"{'; '.join(kept)}."
    )


def named(method: str, limit: str) -> str:
    """A method and its limit, if it has one."""
    return method if limit == "none" else f"{method}, {limit}"


def _spread(values: Sequence[float]) -> str:
    text = f"{statistics.fmean(values):.1f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.1f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"
