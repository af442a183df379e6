"""The tables of the automatic selection benchmark, in Markdown, from nothing but recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.transfer_report import Report, machines
from benchmarks.transfer_table import (
    NOTHING,
    accuracy,
    chosen_rate,
    difference,
    has_diverged,
    markdown,
    rates_kept,
)

# What the others are compared with, and what it is called: the better of full fine-tuning's norm modes by
# validation, each at its best rate.
FULL = ("full-train", "full-frozen")
Run = dict[str, Any]


def tables(report: Report) -> str:
    """Accuracy by cell and set, pooled paired differences to full fine-tuning and to SU, and the bytes."""
    runs = report.runs
    if not runs:
        return f"{report.path} holds no runs yet"
    sets = list(dict.fromkeys(run["dataset"] for run in runs))
    cells = list(dict.fromkeys(run["cell"] for run in runs))
    kept = _kept(report, sets, cells)
    heads = ["cell", *(f"{name}: top-1 %" for name in sets), "- full", "- SU 1", "MiB kept for backward"]
    lines = markdown(heads, [_row(cell, sets, kept) for cell in cells])
    return "\n".join([*lines, "", _notes(report)])


def _kept(report: Report, sets: Sequence[str], cells: Sequence[str]) -> dict[tuple[str, str, int], Run]:
    """The run of each set, cell and seed at the rate that the cell keeps; full is the better of both."""
    seed = report.settings["grid_seed"]
    rates = {(name, cell): chosen_rate(report.runs, name, cell, seed) for name in sets for cell in cells}
    kept = {
        (run["dataset"], run["cell"], run["seed"]): run
        for run in report.runs
        if run["base_lr"] == rates[run["dataset"], run["cell"]]
    }
    for name in sets:
        both = [kept[name, cell, seed] for cell in FULL if (name, cell, seed) in kept]
        if both:
            best = max(both, key=lambda run: (run["val_top1"], -run["val_loss"]))["cell"]
            kept |= {
                (of, "full", at): run for (of, cell, at), run in kept.items() if (of, cell) == (name, best)
            }
    return kept


def _row(cell: str, sets: Sequence[str], kept: dict[tuple[str, str, int], Run]) -> list[str]:
    mine = {(name, seed): run for (name, of, seed), run in kept.items() if of == cell}
    row = [cell, *(accuracy([run for (of, _), run in mine.items() if of == name]) for name in sets)]
    for baseline in ("full", "SU 1"):
        pairs = [
            run["test_top1"] - kept[name, baseline, seed]["test_top1"]
            for (name, seed), run in mine.items()
            if (name, baseline, seed) in kept and not has_diverged(run)
        ]
        row.append(NOTHING if cell == baseline or not pairs else difference(pairs))
    saved = [run["saved_bytes"] for run in mine.values() if run["saved_bytes"] is not None]
    return [*row, f"{statistics.fmean(saved) / 2**20:.2f}" if saved else NOTHING]


def _notes(report: Report) -> str:
    settings = report.settings
    seeds = sorted({run["seed"] for run in report.runs})
    diverged = sum(map(has_diverged, report.runs))
    return (
        f"{settings['network']}, {settings['image_size']} px, batch {settings['batch_size']}, "
        f"{settings['epochs']} epochs, seeds {', '.join(map(str, seeds))}; {len(report.runs)} runs, "
        f"{diverged} of them diverged, on {machines(report.runs)}. Test top-1 of the best epoch by "
        "validation, mean and standard deviation over seeds. Differences: mean over the pairs (set, seed) in "
        "per cent points, with its 95 % paired t interval. full: the better norm mode of full "
        f"fine-tuning at its best rate, both by validation. {rates_kept(report)}"
    )
