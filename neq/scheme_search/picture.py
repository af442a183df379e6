"""The picture of a search: contribution and cost by conv, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from neq.results.pictures import STYLES
from neq.scheme_search.search import Search

# Unit of a cost -> what it is shown in, and the size of that.
_UNITS = {"bytes": ("MiB", 2**20), "macs": ("MACs", 1)}


def search_picture(found: Search) -> Figure:
    """Gains by conv at each share and by the number of biases, above the cost of each whole conv.

    What the scheme updates is filled and on a grey band. A loss that is larger than the largest gain is drawn
    as large as that, so that layers which diverge do not hide the others.
    """
    costs, scheme, gains = found.costs, found.choice.scheme, found.contributions
    width = min(24.0, 5.5 + 0.16 * len(costs.convs))
    figure = Figure(figsize=(width, 5.6), layout="constrained")
    (top, right), (below, corner) = figure.subplots(
        2, 2, sharey="row", width_ratios=(width - 2.2, 2.2), height_ratios=(3, 2)
    )
    corner.axis("off")
    right.set_visible(found.proxy is None)
    chosen = [pair for pair in zip(scheme.indices, scheme.ratios, strict=True) if pair[1] > 0]
    for axes in (top, below):
        for conv, _ in chosen:
            axes.axvspan(conv - 0.5, conv + 0.5, color="#e4e4e4", zorder=0, linewidth=0)
        axes.set_xlim(-0.8, len(costs.convs) - 0.2)
    least = -max(*gains.weights.values(), *gains.biases.values(), 1.0)
    for at, share in enumerate(sorted({share for _, share in gains.weights})):
        of_share = [(conv, max(gain, least)) for (conv, each), gain in gains.weights.items() if each == share]
        filled = [conv for conv, each in chosen if each == share]
        _marks(top, of_share, filled, at, f"{share:g} of a conv")
    of_biases = [(count, max(gain, least)) for count, gain in sorted(gains.biases.items())]
    _marks(right, of_biases, [scheme.n_bias_update], 0, "biases")
    _draw_costs(below, found)
    is_cut = min(*gains.weights.values(), *gains.biases.values(), least) < least
    label = f"gain in validation\ntop-1 (points{f', cut at {least:.0f}' if is_cut else ''})"
    top.set_ylabel(label if found.proxy is None else f"% of the network's\n{found.proxy}")
    right.set_xlabel("biases of the last convs")
    below.set_xlabel("conv, in module order")
    for axes in (top, right, below):
        axes.axhline(0, color="black", linewidth=0.6)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4 if axes is right else "auto"))
    data, net = costs.config.data_provider, costs.config.net_config
    figure.suptitle(
        f"{net.net_name} on {data.dataset}: {'scores after' if found.proxy else 'gains over'} the head alone "
        f"({found.head.val_top1:.1f} %)\nchosen: {len(chosen)} convs and the biases of the last "
        f"{scheme.n_bias_update}, {found.worth}, {found.choice.used / costs.limit:.0%} of the budget",
        fontsize=10,
    )
    handles = [handle for axes in (top, below) for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _marks(
    axes: Axes, points: Sequence[tuple[int, float]], chosen: Sequence[int], at: int, label: str
) -> None:
    """Points (x, gain) in one style, those of chosen x filled."""
    colour, marker, _ = STYLES[at % len(STYLES)]
    style: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": colour}
    axes.plot(*zip(*points, strict=True), **style, fillstyle="none", markersize=5, label=label)
    if filled := [point for point in points if point[0] in chosen]:
        axes.plot(*zip(*filled, strict=True), **style, markersize=8, zorder=3)


def _draw_costs(axes: Axes, found: Search) -> None:
    """Of each whole conv: its neurons and its opening, and above them its depth."""
    costs = found.costs
    name, size = _UNITS.get(costs.unit, (costs.unit, 1))
    options = [costs.option(conv, 1.0) for conv in range(len(costs.convs))]
    own, depth = ([getattr(option, key) / size for option in options] for key in ("cost", "depth"))
    axes.bar(range(len(own)), own, color="#555555", width=0.7, label="its neurons and input")
    if any(depth):
        style: dict[str, Any] = {"color": "white", "edgecolor": "#555555", "hatch": "////", "linewidth": 0.5}
        axes.bar(range(len(own)), depth, bottom=own, width=0.7, label="the way to it", **style)
    limit = (costs.limit - costs.base(0)) / size
    axes.axhline(limit, color="black", linestyle="--", linewidth=1, label="budget beside the head")
    axes.set_ylabel(f"cost of a whole\nconv ({name})")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
