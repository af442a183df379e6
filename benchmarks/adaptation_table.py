"""The tables of the adaptation benchmark, in Markdown, from nothing but recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.transfer_report import Report, machines
from benchmarks.transfer_table import NOTHING, accuracy, difference, has_diverged, markdown

Run = dict[str, Any]


def tables(report: Report) -> str:
    """Accuracy on the held-out part of the target by row and transfer, and how much of the gap is closed."""
    if not report.runs:
        return f"{report.path} holds no runs yet"
    transfers = list(dict.fromkeys(run["dataset"] for run in report.runs))
    cells = list(dict.fromkeys(run["cell"] for run in report.runs))
    heads = ["method", *transfers, "mean", "all images", "- source", "gap closed", "MiB kept"]
    rows = [_row(cell, transfers, report.runs) for cell in cells]
    return "\n".join([*markdown(heads, rows), "", _notes(report)])


def _row(cell: str, transfers: Sequence[str], runs: Sequence[Run]) -> list[str]:
    mine = [run for run in runs if run["cell"] == cell]
    sound = [run for run in mine if not has_diverged(run)]
    if not sound:
        return [cell, *(accuracy([run for run in mine if run["dataset"] == name]) for name in transfers)] + (
            [NOTHING] * 5
        )
    source, labelled = (_by_pair(runs, name) for name in ("source", "labelled"))
    gains = [
        run["test_top1"] - source[pair]
        for run in sound
        if (pair := (run["dataset"], run["seed"])) in source and cell != "source"
    ]
    gaps = [labelled[pair] - source[pair] for pair in source.keys() & labelled.keys()]
    row = [cell, *(accuracy([run for run in mine if run["dataset"] == name]) for name in transfers)]
    row += [f"{statistics.fmean(run[key] for run in sound):.1f}" for key in ("test_top1", "test_top1_all")]
    row.append(difference(gains, digits=1) if gains else NOTHING)
    gap = statistics.fmean(gaps) if gaps else 0.0
    row.append(f"{100 * statistics.fmean(gains) / gap:.0f} %" if gains and gap > 0 else NOTHING)
    kept = [run["saved_bytes"] for run in sound if run["saved_bytes"] is not None]
    return [*row, f"{statistics.fmean(kept) / 2**20:.1f}" if kept else NOTHING]


def _by_pair(runs: Sequence[Run], cell: str) -> dict[tuple[str, int], float]:
    """Accuracy of a row by transfer and seed."""
    return {
        (run["dataset"], run["seed"]): run["test_top1"]
        for run in runs
        if run["cell"] == cell and not has_diverged(run)
    }


def _notes(report: Report) -> str:
    settings = report.settings
    seeds = sorted({run["seed"] for run in report.runs})
    return (
        f"{settings['network']}, {settings['image_size']} px, {settings['batch_size']} images of each domain "
        f"a step, {settings['epochs']} rounds, norms {settings['norm_mode']}, {settings['optimizer']} at "
        f"{settings['rate']}, seeds {', '.join(map(str, seeds))}; {len(report.runs)} runs, on "
        f"{machines(report.runs)}. Top-1 on the target's test split, which the labelled row does not train "
        "on, after the last epoch: mean and standard deviation over seeds; `all images`: of the whole "
        "target. - source: mean over the pairs (transfer, seed) in per cent points, with its 95 % paired t "
        "interval. Gap closed: of the mean difference between labelled and source."
    )
