"""The tables of the adaptation benchmark, in Markdown, from nothing but recorded runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.adaptation_rows import METHODS
from benchmarks.transfer_report import Report, machines
from benchmarks.transfer_table import NOTHING, accuracy, difference, has_diverged, markdown

Run = dict[str, Any]
Pair = tuple[str, int]  # a transfer and a seed


def tables(report: Report) -> str:
    """Accuracy on the held-out part of the target by row and transfer, and how much of the gap is closed."""
    runs = report.runs
    if not runs:
        return f"{report.path} holds no runs yet"
    cells = list(dict.fromkeys(run["cell"] for run in runs))
    methods = [cell for cell in cells if cell in METHODS]
    of_study = [cell for cell in cells if cell not in METHODS]
    lines = _table(methods, runs, ())
    if of_study:
        lines += ["", "Within budgets:", "", *_table(of_study, runs, ("of mcc's gain",))]
    return "\n".join([*lines, "", _notes(report)])


def _table(cells: Sequence[str], runs: Sequence[Run], more: Sequence[str]) -> list[str]:
    transfers = list(dict.fromkeys(run["dataset"] for run in runs if run["cell"] in cells))
    heads = ["method", *transfers, "mean", "all images", "- source", "gap closed", "MiB kept", *more]
    return markdown(heads, [_row(cell, transfers, runs)[: len(heads)] for cell in cells])


def _row(cell: str, transfers: Sequence[str], runs: Sequence[Run]) -> list[str]:
    mine = [run for run in runs if run["cell"] == cell]
    sound = [run for run in mine if not has_diverged(run)]
    row = [cell, *(accuracy([run for run in mine if run["dataset"] == name]) for name in transfers)]
    if not sound:
        return row + [NOTHING] * 6
    source, labelled, mcc = (_by_pair(runs, name) for name in ("source", "labelled", "mcc"))
    row += [f"{statistics.fmean(run[key] for run in sound):.1f}" for key in ("test_top1", "test_top1_all")]
    # Of the pairs that the row has, so that transfers which it lacks do not count.
    own = {(run["dataset"], run["seed"]): run["test_top1"] for run in sound}
    pairs = [] if cell == "source" else [pair for pair in own if pair in source]
    gains = [own[pair] - source[pair] for pair in pairs]
    row.append(difference(gains, digits=1) if gains else NOTHING)
    row.append(_share(own, source, labelled, pairs))
    kept = [run["saved_bytes"] for run in sound if run["saved_bytes"] is not None]
    return [
        *row,
        f"{statistics.fmean(kept) / 2**20:.1f}" if kept else NOTHING,
        _share(own, source, mcc, pairs),
    ]


def _share(
    found: Mapping[Pair, float],
    low: Mapping[Pair, float],
    high: Mapping[Pair, float],
    pairs: Sequence[Pair],
) -> str:
    """The part of the mean difference between low and high that found closes, in per cent."""
    pairs = [pair for pair in pairs if pair in high]
    whole = sum(high[pair] - low[pair] for pair in pairs)
    return f"{100 * sum(found[pair] - low[pair] for pair in pairs) / whole:.0f} %" if whole > 0 else NOTHING


def _by_pair(runs: Sequence[Run], cell: str) -> dict[Pair, float]:
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
        f"{settings['rate']}, a bottleneck of {settings['bottleneck']} that trains with the head at "
        f"{settings['head_rate']:g} times that, seeds {', '.join(map(str, seeds))}; {len(report.runs)} runs, "
        f"on {machines(report.runs)}. Top-1 on the target's test split, which the labelled row does not "
        "train on, after the last epoch: mean and standard deviation over seeds; `all images`: of the whole "
        "target. - source: mean over the pairs (transfer, seed) in per cent points, with its 95 % paired t "
        "interval. Gap closed: of the mean difference between labelled and source."
    )
