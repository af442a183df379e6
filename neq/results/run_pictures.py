"""The pictures of one run: its curves, and by layer and epoch its velocities and chosen neurons."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from neq.runs.metrics import Metric, curves
from neq.runs.selection_file import SelectionHistory
from neq.utils.atomic_files import atomic_file

# Split -> its name and line; lines differ as well as colours, for print in black and white.
SPLITS = {"train": ("train", "-"), "valid": ("validation", "--"), "test": ("test", ":")}
QUANTILES = (0.1, 0.5, 0.9)


def plot_curves(metrics: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """Writes `curves_picture` as a PNG; args as there."""
    save_figure(curves_picture(metrics, title), path)


def curves_picture(metrics: list[dict[str, Any]], title: str = "") -> Figure:
    """Every metric that an epoch logs over the epochs, all splits in one panel; losses on a logarithmic axis.

    Args:
        metrics: rows of metrics.jsonl, one or more.
        title: of the picture; empty: none.
    """
    drawn = {name: splits for name, splits in sorted(curves().items()) if _curves(metrics, splits)}
    figure = Figure(figsize=(4.5 * max(len(drawn), 1), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, max(len(drawn), 1)))
    for axes, (name, splits) in zip(panels, drawn.items(), strict=False):
        for metric, points in _curves(metrics, splits):
            label, style = SPLITS.get(metric.split, (metric.split, "-."))
            axes.plot(*zip(*points, strict=True), style, marker=".", markersize=4, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.set_ylabel(f"{name} ({splits[0].unit})" if splits[0].unit else name)
        if splits[0].higher_is_better is False:
            axes.set_yscale("log")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _curves(
    metrics: list[dict[str, Any]], splits: Sequence[Metric]
) -> list[tuple[Metric, list[tuple[int, float]]]]:
    """The points (epoch, value) of each split that logged any."""
    found = []
    for metric in splits:
        section, _, name = metric.key.partition(".")
        values = [(row["epochs"], row.get(section, {}).get(name)) for row in metrics]
        points = [(epoch, value) for epoch, value in values if value is not None]
        if points:
            found.append((metric, points))
    return found


def plot_selection(metrics: list[dict[str, Any]], path: Path, title: str = "") -> None:
    """The share of chosen neurons per layer and epoch.

    Args:
        metrics: rows of metrics.jsonl, one or more.
        path: of the PNG.
        title: of the picture; empty: none.
    """
    frozen = [row["Perc of frozen conv neurons"]["layer"] for row in metrics]
    names = list(frozen[0])
    shares = np.array([[100 - row[name] for row in frozen] for name in names])
    height = min(24.0, max(3.0, 1.2 + 0.16 * len(names)))
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    picture = _heat_map(axes, shares, [row["epochs"] for row in metrics], vmin=0, vmax=100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks(range(len(names)), names, fontsize=6)
    figure.colorbar(picture, ax=axes, label="chosen neurons (%)")
    if title:
        figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def velocity_picture(choices: SelectionHistory, title: str) -> Figure:
    """How velocities are distributed in each layer, epoch by epoch: three quantiles of their size.

    Args:
        choices: with velocities.
        title: of the picture.
    """
    assert choices.velocity is not None, "the run measured velocities"
    sizes = choices.by_layer(np.abs(choices.velocity))
    quantiles = np.stack(
        [[_quantiles(epoch) for epoch in layer] for layer in sizes], axis=0
    )  # [L, E, quantiles]
    figure = Figure(figsize=(11.0, _height(choices)), layout="constrained")
    all_axes = figure.subplots(1, len(QUANTILES), sharey=True)
    known = quantiles[np.isfinite(quantiles) & (quantiles > 0)]
    # Three decades below the largest are enough to see; what lies lower is as good as still.
    most = float(known.max()) if known.size else 1.0
    norm = LogNorm(most / 1000, most)
    for at, (axes, quantile) in enumerate(zip(all_axes, QUANTILES, strict=True)):
        shown = np.clip(quantiles[:, :, at], most / 1000, None)
        picture = _choices_map(axes, choices, shown, norm=norm)
        axes.set_title("median" if quantile == 0.5 else f"{quantile:.0%} quantile", fontsize=9)
    _layer_names(all_axes[0], choices)
    bar = figure.colorbar(picture, ax=all_axes, label="|velocity| of a layer's neurons", extend="min")
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    return figure


def chosen_picture(choices: SelectionHistory, title: str) -> Figure:
    """The share of chosen neurons by layer and epoch, and of those that were chosen at least once.

    Args:
        choices: of a run.
        title: of the picture.
    """
    layers = choices.by_layer(choices.chosen.astype(np.float32))
    shares = np.stack([100 * layer.mean(axis=1) for layer in layers])
    ever = [100 * float(layer.any(axis=0).mean()) for layer in layers]
    mean = [float(share) for share in shares.mean(axis=1)]
    figure = Figure(figsize=(9.0, _height(choices)), layout="constrained")
    heat, bars = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    picture = _choices_map(heat, choices, shares, vmin=0, vmax=100)
    _layer_names(heat, choices)
    rows = range(len(choices.layers))
    bars.barh(
        rows, ever, color="white", edgecolor="black", hatch="////", linewidth=0.5, label="at least once"
    )
    bars.barh(rows, mean, height=0.4, color="black", label="in an epoch (mean)")
    bars.set_xlim(0, 104)
    bars.set_xlabel("chosen neurons (%)")
    bars.tick_params(axis="y", length=0)
    bars.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *bars.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize=8
    )
    figure.colorbar(picture, ax=heat, label="chosen neurons (%)")
    figure.suptitle(title, fontsize=10)
    return figure


def _quantiles(values: NDArray[np.floating]) -> NDArray[np.floating]:
    found = values[np.isfinite(values)]
    return np.quantile(found, QUANTILES) if found.size else np.full(len(QUANTILES), np.nan)


def _choices_map(
    axes: Axes, choices: SelectionHistory, values: NDArray[np.floating], **scale: Any
) -> AxesImage:
    # It stands beside others: there is no room for more numbers.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    return _heat_map(axes, values, choices.epochs, **scale)


def _layer_names(axes: Axes, choices: SelectionHistory) -> None:
    named = [f"{name} ({size})" for name, size in zip(choices.layers, choices.sizes, strict=True)]
    axes.set_yticks(range(len(named)), named, fontsize=6)
    axes.set_ylabel("layer (neurons)")


def _height(choices: SelectionHistory) -> float:
    """Inches: a line a layer, within what a page and a viewer can take."""
    return min(40.0, max(3.2, 1.6 + 0.13 * len(choices.layers)))


def _heat_map(axes: Axes, values: NDArray[np.floating], epochs: Sequence[int], **scale: Any) -> AxesImage:
    """Draws a value for each layer and epoch: layers downwards, epochs to the right, larger values lighter.

    Args:
        axes: empty ones.
        values: [L, E].
        epochs: their E numbers, one after another.
        scale: the range of the colours, as imshow takes it.
    """
    axes.set_xlabel("epoch")
    return axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        extent=(epochs[0] - 0.5, epochs[-1] + 0.5, len(values) - 0.5, -0.5),
        **scale,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure; the same picture is the same file.

    Args:
        figure: any.
        path: .png or .svg; its folder exists.
    """
    kind, content = path.suffix[1:], io.BytesIO()
    # No date, no random names.
    with matplotlib.rc_context({"svg.hashsalt": "neq"}):
        figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    with atomic_file(path) as file:
        file.write(content.getbuffer())
