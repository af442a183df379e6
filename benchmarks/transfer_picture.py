"""Accuracy against measured cost, drawn from the recorded runs of the transfer benchmark.

python -m benchmarks.transfer_picture --output docs/images/accuracy_by_cost.png
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.transfer_report import Report
from benchmarks.transfer_runs import CELLS
from benchmarks.transfer_table import BASELINE, chosen_rate
from neq.utils.errors import UserError

NORM_COLOURS = {"train": "#b45309", "frontier": "#0f766e", "frozen": "#1d4ed8"}
METHOD_MARKERS = {"full": "o", "su": "s", "random": "^", "velocity": "D", "head": "v"}


@dataclass(frozen=True)
class Point:
    """One cell of the benchmark, averaged over its runs that did not diverge.

    Args:
        cell: its name, `METHOD-NORM_MODE` or `head`.
        cost: of a step, as a share of full training's: over the pairs (data set, seed), the median of times
            and the mean of bytes.
        accuracy: test top-1, mean over data sets and seeds, in percent.
    """

    cell: str
    cost: float
    accuracy: float


def points(report: Report, cost: str) -> list[Point]:
    """The cells of a report at their chosen learning rates.

    Args:
        report: recorded runs.
        cost: "step_seconds" (a run's fastest epoch) or "saved_bytes" (kept for backward).
    """
    kept = {}
    for name in dict.fromkeys(run["dataset"] for run in report.runs):
        for cell in CELLS:
            rate = chosen_rate(report.runs, name, cell, report.settings["grid_seed"])
            for run in report.runs:
                if (run["dataset"], run["cell"], run["base_lr"], run["outcome"]) == (
                    name,
                    cell,
                    rate,
                    "finished",
                ):
                    value = min(run[cost]) if cost == "step_seconds" else run[cost]
                    kept[cell, name, run["seed"]] = (value, run["test_top1"])
    found = []
    for cell in CELLS:
        pairs = [
            (value / kept[BASELINE, name, seed][0], accuracy)
            for (of, name, seed), (value, accuracy) in kept.items()
            if of == cell and (BASELINE, name, seed) in kept
        ]
        if pairs:
            costs, accuracies = zip(*pairs, strict=True)
            average = statistics.median if cost == "step_seconds" else statistics.fmean
            found.append(Point(cell, average(costs), statistics.fmean(accuracies)))
    return found


def draw(report: Report) -> Figure:
    """Two panels: test top-1 against time of a step and against bytes kept for backward."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    labels = {"step_seconds": "time of a step", "saved_bytes": "bytes kept for backward"}
    for axes, (cost, label) in zip(panels, labels.items(), strict=True):
        for point in points(report, cost):
            method, _, norms = point.cell.partition("-")
            axes.scatter(
                point.cost,
                point.accuracy,
                marker=METHOD_MARKERS[method],
                color=NORM_COLOURS.get(norms or "frozen"),
                s=46,
                zorder=3,
            )
        axes.axvline(1, color="#9ca3af", linewidth=0.8, linestyle="--")
        axes.set_xlabel(f"{label}, full training = 1")
        axes.set_xlim(-0.04, 1.19)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test top-1, %")
    names = {
        "full": "everything",
        "su": "SU",
        "random": "random",
        "velocity": "velocity",
        "head": "head alone",
    }
    for method, marker in METHOD_MARKERS.items():
        panels[1].scatter([], [], marker=marker, color="#4b5563", label=names[method])
    for norms, colour in NORM_COLOURS.items():
        panels[1].scatter([], [], marker="s", color=colour, label=f"norm mode {norms}")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def main(argv: list[str] | None = None) -> int:
    """Draws the picture; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, default=Path("benchmarks/transfer.json"))
    parser.add_argument("--output", type=Path, default=Path("docs/images/accuracy_by_cost.png"))
    given = parser.parse_args(argv)
    try:
        report = Report(given.report)
        if not report.runs:
            raise UserError(
                f"report {given.report} holds no runs; train some with python -m benchmarks.transfer"
            )
        draw(report).savefig(given.output, dpi=150)
    except (UserError, OSError) as error:
        print(f"neq: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
