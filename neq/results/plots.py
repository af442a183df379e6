"""The pictures of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neq.results.picture_parts import heat_map, save_figure


def plot_curves(metrics: list[dict[str, Any]], path: Path) -> None:
    """Loss and top-1 of every split over the epochs.

    Args:
        metrics: rows of metrics.jsonl, one or more.
        path: of the PNG.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    # Line styles differ as well as colours, for print in black and white.
    splits = (("train", "train", "-"), ("valid", "val", "--"), ("test", "test", ":"))
    for axes, key in ((loss, "loss"), (top1, "top1")):
        for section, short, style in splits:
            points = [
                (row["epochs"], row[section][f"{short}/{key}"])
                for row in metrics
                if section in row and row[section][f"{short}/{key}"] is not None
            ]
            if points:
                label = {"valid": "validation"}.get(section, section)
                axes.plot(*zip(*points, strict=True), style, marker=".", markersize=4, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    loss.set_ylabel("cross-entropy")
    loss.set_yscale("log")
    top1.set_ylabel("top-1 (%)")
    save_figure(figure, path)


def plot_selection(metrics: list[dict[str, Any]], path: Path) -> None:
    """The share of chosen neurons per layer and epoch.

    Args:
        metrics: rows of metrics.jsonl, one or more.
        path: of the PNG.
    """
    frozen = [row["Perc of frozen conv neurons"]["layer"] for row in metrics]
    names = list(frozen[0])
    shares = np.array([[100 - row[name] for row in frozen] for name in names])
    height = min(24.0, max(3.0, 1.2 + 0.16 * len(names)))
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    picture = heat_map(axes, shares, [row["epochs"] for row in metrics], vmin=0, vmax=100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks(range(len(names)), names, fontsize=6)
    figure.colorbar(picture, ax=axes, label="chosen neurons (%)")
    save_figure(figure, path)
