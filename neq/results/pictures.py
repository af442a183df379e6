"""The pictures of sweeps: accuracy against budget, and against what was measured of a step's cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)
from pandas import DataFrame, Series

from neq.results.run_pictures import save_figure
from neq.results.series import Panel, pareto_front
from neq.runs.metrics import Metric, cost_metrics

# Colour, marker and line differ together, and colours in lightness too: legible in black and white.
STYLES = (
    *(("#000000", "o", "-"), ("#0072b2", "s", "--"), ("#d55e00", "^", ":"), ("#009e73", "D", "-.")),
    *(("#7a3b69", "v", "-"), ("#56b4e9", "P", "--"), ("#e69f00", "X", ":"), ("#555555", "*", "-.")),
    *(("#003f5c", "<", "-"), ("#88ccaa", ">", "--"), ("#a05000", "h", ":"), ("#999999", "p", "-.")),
)
WIDE = 8.0  # a cost or budget that spans more is drawn on a logarithmic axis
# Unit of a budget -> what it is called, and what it is shown in.
_UNITS = {
    **{"parameters": ("parameters", 1), "bytes": ("MiB of training memory", 2**20), "macs": ("MACs", 1)},
    "time": ("ms of a step", 10**6),
}
_FRONT: dict[str, Any] = {
    "drawstyle": "steps-post",
    "color": "#c8c8c8",
    "linewidth": 4,
    "zorder": 1,
    "label": "Pareto front, % updated",
}
# Recorded unit of a cost -> the unit that it is shown in, and what one of it is in the recorded one.
_COST_UNITS = {"s": ("ms", 1e-3), "bytes": ("MiB", 2**20)}


def accuracy_by_budget(panel: Panel) -> Figure:
    """Test top-1 against the budget, a line a policy, bars of one standard deviation over seeds.

    Args:
        panel: with one series or more.
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    unit, size = _UNITS[panel.unit]
    budgets = list(panel.points["budget"] / size)
    is_log = _scale(axes, budgets)
    for at, (name, rows) in enumerate(panel.series):
        shift = at - (len(panel.series) - 1) / 2
        places = [_dodged(budget, shift, budgets, is_log) for budget in rows["budget"] / size]
        _errorbar(axes, at, name, places, rows, joined=bool(rows["is_joined"].all()))
        if len(rows) == 1 and rows["share"].iloc[0] >= 100:  # everything is trained: a level to reach
            colour, _, line = STYLES[at % len(STYLES)]
            axes.axhline(rows["test_top1"].iloc[0], color=colour, linestyle=line, linewidth=0.8, alpha=0.6)
    _budget_ticks(axes, budgets, is_log)
    _frame(axes, f"budget ({unit})")
    axes.set_ylabel("test top-1 (%)")
    _finish(figure, panel)
    return figure


def accuracy_by_cost(panel: Panel) -> Figure:
    """Test top-1 against every measured cost of a step, with its Pareto front.

    Points on a front are filled, and joined by its steps.

    Args:
        panel: with one series or more.
    """
    costs = cost_metrics()
    figure = Figure(figsize=(11.0 * len(costs) / 3, 4.6), layout="constrained")
    for axes, (name, metric) in zip(figure.subplots(1, len(costs), sharey=True), costs.items(), strict=True):
        _cost_panel(axes, panel, name, metric)
    figure.axes[0].set_ylabel("test top-1 (%)")
    _finish(figure, panel)
    return figure


def save_picture(figure: Figure, path: Path) -> tuple[Path, ...]:
    """Writes a figure as PNG and as SVG; gives both paths.

    Args:
        figure: any.
        path: without its suffix; its folder exists.
    """
    paths = tuple(path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg"))
    for one in paths:
        save_figure(figure, one)
    return paths


def _cost_panel(axes: Axes, panel: Panel, cost: str, metric: Metric) -> None:
    unit, size = _COST_UNITS[metric.unit]
    known = panel.points[panel.points[cost].notna()]
    kind = _kind(panel) if cost == "peak_memory_bytes" and len(known) else ""
    _frame(axes, f"{metric.header.lower()} ({unit}{kind})")
    if known.empty:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center")
        axes.set_xticks([])
        return
    axes.margins(x=0.2)
    is_log = _scale(axes, list(known[cost] / size))
    places = list(zip(known[cost] / size, known["test_top1"], strict=True))
    best = pareto_front(places)
    front, steps = known.iloc[best], [places[at] for at in best]
    axes.plot(*zip(*steps, strict=True), **_FRONT)
    for at, (name, points) in enumerate(panel.series):
        rows = points[points[cost].notna()]
        filled = list(rows.index.isin(front.index))
        bars = rows[f"{cost}_std"] / size if (rows[f"{cost}_count"] > 1).any() else None
        _errorbar(axes, at, name, list(rows[cost] / size), rows, bars, joined=False, filled=filled)
    if is_log:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))  # a bar may reach below nothing, an axis need not
    _name_front(axes, steps, list(front["share"]))


def _name_front(axes: Axes, steps: Sequence[tuple[float, float]], shares: Sequence[float]) -> None:
    """Writes what they update at most above and left of a front's points, where no other point can be.

    Args:
        axes: with everything else drawn.
        steps: cost and top-1 of each point.
        shares: what each updates at most, in per cent.
    """
    # Names that would lie upon one another are left out.
    to_axes = axes.transData + axes.transAxes.inverted()
    last = (-1.0, -1.0)
    for step, share in zip(steps, shares, strict=True):
        x, y = to_axes.transform(step)
        if x - last[0] > 0.13 or y - last[1] > 0.05:
            said = f"{share:.3g} %"
            # Right of a point that has no room at its left.
            beside, side = (-5, "right") if x > 0.12 else (5, "left")
            axes.annotate(said, step, (beside, 4), textcoords="offset points", ha=side, fontsize=7)
            last = (x, y)


def _errorbar(
    axes: Axes,
    at: int,
    name: str,
    places: Sequence[float],
    rows: DataFrame,
    costs: Series | None = None,
    joined: bool = True,
    filled: Sequence[bool] = (),
) -> None:
    """Draws the points of a series with their deviations, where there are two seeds or more.

    Args:
        axes: where.
        at: the number of the series.
        name: of the series.
        places: of the points along the horizontal axis.
        rows: of the series, as of `Panel`.
        costs: deviations along that axis.
        joined: whether a line joins the points.
        filled: which of them are filled; none given: all.
    """
    colour, marker, line = STYLES[at % len(STYLES)]
    means = list(rows["test_top1"])
    axes.errorbar(
        places,
        means,
        yerr=rows["test_top1_std"] if (rows["test_top1_count"] > 1).any() else None,
        xerr=costs,
        fmt="none",
        ecolor=colour,
        elinewidth=1,
        capsize=3,
    )
    if joined:
        axes.plot(places, means, color=colour, linestyle=line, linewidth=1.4)
    for x, y, full in zip(places, means, filled or [True] * len(means), strict=True):
        face = colour if full else "white"
        axes.plot([x], [y], marker, color=colour, markerfacecolor=face, markersize=6, zorder=3 + full)
    if means:
        style = line if joined else "none"
        axes.plot([], [], color=colour, marker=marker, linestyle=style, markersize=6, label=name)


def _scale(axes: Axes, values: Sequence[float]) -> bool:
    """A logarithmic axis where the values span much; whether it is one."""
    least, most = min(values), max(values)
    if least == most:
        margin = abs(least) * 0.2 or 1.0
        axes.set_xlim(least - margin, least + margin)
        return False
    if least <= 0 or most / least < WIDE:
        return False
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    return True


def _dodged(budget: float, shift: float, budgets: Sequence[float], is_log: bool) -> float:
    """A place beside the budget, so that bars of several series at one budget do not hide one another."""
    least, most = min(budgets), max(budgets)
    if is_log:
        return budget * float((most / least) ** (0.008 * shift))
    return budget + 0.008 * shift * ((most - least) or abs(least) * 0.4 or 2.0)


def _budget_ticks(axes: Axes, values: Sequence[float], is_log: bool) -> None:
    """Ticks at the budgets themselves, where they do not crowd one another."""
    formatter = EngFormatter(places=None, sep="")
    axes.xaxis.set_major_formatter(formatter)
    budgets = sorted(set(values))
    least, most = budgets[0], budgets[-1]
    kept: list[float] = []
    for budget in budgets:
        far = (budget / kept[-1] > (most / least) ** 0.09) if kept and is_log else True
        if kept and not is_log:
            far = budget - kept[-1] > 0.09 * (most - least)
        if far:
            kept.append(budget)
    if len(kept) > 8:
        return
    axes.set_xticks(kept, [formatter.format_eng(float(f"{budget:.3g}")) for budget in kept])


def _kind(panel: Panel) -> str:
    """How peak memory was measured."""
    kinds = panel.texts("peak_memory_kind")
    if not kinds:
        return ""
    return f", {kinds[0]}" if len(kinds) == 1 else ", measured in several ways"


def _frame(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _finish(figure: Figure, panel: Panel) -> None:
    """Title, and a legend below the panels, where it hides nothing."""
    counts = sorted(set(panel.points["test_top1_count"].astype(int)))
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    over = f"mean ± standard deviation of {seeds} seeds" if counts[-1] > 1 else "1 seed"
    lines = [f"{panel.network} on {panel.dataset}", f"{over}, {panel.done} of {panel.expected} runs"]
    if len(devices := panel.texts("device")) > 1:
        lines[1] += f", on {' and '.join(devices)}"
    figure.suptitle("\n".join(lines), fontsize=10)
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    longest = max(map(len, handles))
    across = max(1, int(figure.get_figwidth() * 11 // (longest + 8)))
    figure.legend(
        [*handles.values()],
        [*handles],
        loc="outside lower center",
        ncols=min(across, len(handles)),
        frameon=False,
        fontsize=9,
    )
