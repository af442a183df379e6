"""Accuracy over a sequence of tasks, and memory against its limit, drawn from the benchmark of retraining.

python -m benchmarks.retraining_picture --report retraining.json --output retraining.png
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.common import run_benchmark
from benchmarks.retraining_table import cells, named
from benchmarks.transfer_report import Report
from neq.utils.errors import UserError


def draw(report: Report, sequence: str) -> Figure:
    """Two panels: top-1 right after each task, and its mean against the memory that was taken.

    Raises:
        UserError: the report has no runs of the sequence.
    """
    runs = [run for run in report.runs if run["sequence"] == sequence and "after" in run]
    if not runs:
        raise UserError(f"report {report.path} holds no runs of {sequence}")
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    tasks = list(runs[0]["after"])
    for number, (method, limit, of) in enumerate(cells(runs)):
        colour = colormaps["tab10"](number % 10)
        means = [statistics.fmean(run["after"][task] for run in of) for task in tasks]
        dashes = "--" if "used" not in of[0] else "-"
        left.plot(range(len(tasks)), means, dashes, marker=".", color=colour, label=named(method, limit))
        if "used" in of[0]:
            used = max(run["used"] for run in of) / 2**20
            right.scatter(used, statistics.fmean(means), color=colour, s=46, zorder=3)
    for most in sorted({run["limit_bytes"] for run in runs if run.get("limit_bytes")}):
        right.axvline(most / 2**20, color="#9ca3af", linewidth=0.8, linestyle="--")
    left.set_xticks(range(len(tasks)), tasks, rotation=35, ha="right", fontsize=7)
    left.set_ylabel("test top-1 right after the task, %")
    right.set_ylabel("the same, mean over tasks, %")
    right.set_xlabel("memory taken, MiB; dashed: limits")
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def main(argv: list[str] | None = None) -> int:
    """Draws the picture; returns the exit code."""

    def command(arguments: list[str]) -> None:
        parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
        parser.add_argument("--report", type=Path, default=Path("benchmarks/retraining.json"))
        parser.add_argument("--sequence", default="cifar10")
        parser.add_argument("--output", type=Path, default=Path("docs/images/retraining.png"))
        given = parser.parse_args(arguments)
        draw(Report(given.report), given.sequence).savefig(given.output, dpi=150)

    return run_benchmark(command, argv)


if __name__ == "__main__":
    sys.exit(main())
