"""The pictures of a report, as figures of matplotlib."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame

from neq.results.pictures import STYLES
from neq.results.series import pareto_front

# Classes whose names and numbers a confusion matrix has room for; colours and markers that differ.
NAMED, NUMBERED, COLOURED = 40, 20, 20
LONGEST = 18


def confusion_picture(confusion: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """A confusion matrix, rows as shares of their class.

    Args:
        confusion: images by class and prediction, [C, C].
        classes: their names.
    """
    count = len(classes)
    side = min(9.0, max(4.0, 1.8 + 0.3 * count))
    figure = Figure(figsize=(side, side * 0.92), layout="constrained")
    axes = figure.subplots()
    shares = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if count <= NUMBERED:
        for (row, column), images in np.ndenumerate(confusion):
            if images:
                colour = "white" if shares[row, column] > 55 else "black"
                axes.text(column, row, str(images), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    if count <= NAMED:
        names = [_short(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90, fontsize=7)
        axes.set_yticks(range(count), names, fontsize=7)
    figure.colorbar(picture, ax=axes, label="% of the class", shrink=0.8)
    axes.set_title("Confusion matrix", fontsize=10)
    return figure


def calibration_picture(bins: DataFrame, error: float) -> Figure:
    """Accuracy against confidence, by bins of the highest probability.

    Args:
        bins: as of `quality.calibration`.
        error: the expected calibration error, of 1.
    """
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="calibrated")
    sizes = 20 + 180 * bins["images"] / bins["images"].max()
    axes.scatter(bins["confidence"], bins["accuracy"], s=sizes, color="#0072b2", alpha=0.8, zorder=3)
    axes.plot(bins["confidence"], bins["accuracy"], color="#0072b2", linewidth=1, label="this network")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability of the prediction")
    axes.set_ylabel("share that is right")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    axes.set_title(f"Calibration: ECE {100 * error:.1f} %; area by images", fontsize=10)
    return figure


def map_picture(places: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """t-SNE of features, an image a point.

    Args:
        places: [n, 2].
        labels: of the images, [n].
        classes: their names.
    """
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    colours, markers = matplotlib.colormaps["tab20"].colors, "osD^vPX<>h"  # type: ignore[attr-defined]
    for label in np.unique(labels):
        some = places[labels == label]
        axes.scatter(
            some[:, 0],
            some[:, 1],
            s=14,
            linewidths=0,
            alpha=0.8,
            label=_short(classes[label]),
            color=colours[label % 20],
            marker=markers[label % len(markers)],
        )
    axes.set_xticks([])
    axes.set_yticks([])
    if len(classes) <= COLOURED:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False, markerscale=1.5)
    axes.set_title(f"Features of {len(places)} test images, t-SNE", fontsize=10)
    return figure


def pareto_picture(points: DataFrame) -> Figure:
    """Test accuracy against size and time of inference, with the Pareto fronts.

    Args:
        points: a row for each variant of each run: run, variant, accuracy (%), mib, ms.
    """
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    headers = {"mib": "size of the file (MiB)", "ms": "ms an image, batch 1"}
    runs = list(dict.fromkeys(points["run"]))
    for axes, (key, header) in zip(figure.subplots(1, 2, sharey=True), headers.items(), strict=True):
        places = list(zip(points[key], points["accuracy"], strict=True))
        steps = [places[at] for at in pareto_front(places)]
        axes.plot(*zip(*steps, strict=True), drawstyle="steps-post", color="#c8c8c8", linewidth=4, zorder=1)
        for number, run in enumerate(runs):
            rows = points[points["run"] == run]
            colour, marker, _ = STYLES[number % len(STYLES)]
            axes.plot(rows[key], rows["accuracy"], marker, color=colour, markersize=6, label=_short(run, 40))
        least, most = points[key].min(), points[key].max()
        if most > 8 * least > 0:
            axes.set_xscale("log")
        axes.margins(x=0.15, y=0.15)
        axes.set_xlabel(header)
        axes.grid(alpha=0.3)
        _name_variants(axes, points, key)
    figure.axes[0].set_ylabel("accuracy (%)")
    if len(runs) > 1:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle("Accuracy against size and time; grey: Pareto front", fontsize=10)
    return figure


def _name_variants(axes: Axes, points: DataFrame, key: str) -> None:
    """Writes the variants beside their points, where names do not cover one another."""
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    written: list[tuple[float, float]] = []
    for x, y, name in zip(points[key], points["accuracy"], points["variant"], strict=True):
        across, up = to_axes.transform((x, y))
        for offset in (4, -9, 13, -18):
            place = across, up + offset / 200
            if all(abs(place[0] - a) > 0.2 or abs(place[1] - b) > 0.04 for a, b in written):
                short = name.removeprefix("onnxruntime ")
                axes.annotate(short, (x, y), (4, offset), textcoords="offset points", fontsize=6)
                written.append(place)
                break


def data_uri(figure: Figure, kind: str = "svg") -> str:
    """A figure as the address of an image that a page holds itself; the same figure is the same text."""
    content = io.BytesIO()
    # Names in scripts that the font lacks are warned of.
    with matplotlib.rc_context({"svg.hashsalt": "neq"}), warnings.catch_warnings(action="ignore"):
        figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    name = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{name};base64,{base64.b64encode(content.getvalue()).decode()}"


def _short(name: str, longest: int = LONGEST) -> str:
    """A name as a picture has room for, without what matplotlib would read as mathematics."""
    cut = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return cut.encode("utf-8", "replace").decode().replace("$", r"\$")
