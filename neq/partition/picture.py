"""Pictures of a search: its trials one after another and its tree, and the network that it found."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from neq.partition.model import STAGES, Model
from neq.partition.search import Trial, best_trial

_COLOURS = {"n": "#bdbdbd", "a": "#2166ac", "c": "#b2182b"}


def search_picture(trials: Sequence[Trial], title: str) -> Figure:
    """The accuracy of trials in order with the best so far, and the decisions that they share as a tree.

    A line from one stage to the next is a kind of sync, as wide as its share of the trials; it is as dark as
    the mean of their accuracies lies high in the range.

    Args:
        trials: in order.
        title: above both.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    scored = [(number, t.val_top1) for number, t in enumerate(trials, 1) if t.val_top1 is not None]
    if scored:
        numbers, values = zip(*scored, strict=True)
        left.plot(numbers, values, "o", color="#555555", markersize=4, label="trial")
        best = [max(values[: at + 1]) for at in range(len(values))]
        left.step(numbers, best, where="post", color="#2166ac", label="best so far")
        left.legend(frameon=False)
    left.set(xlabel="trial", ylabel="validation top-1 (%)")
    left.grid(alpha=0.3)
    left.spines[["top", "right"]].set_visible(False)
    _draw_tree(right, trials)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_tree(axes: Axes, trials: Sequence[Trial]) -> None:
    scores = [trial.val_top1 for trial in trials if trial.val_top1 is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    found = best_trial(trials)
    for depth in range(STAGES):
        for prefix in sorted({trial.sync[: depth + 1] for trial in trials}):
            below = [trial for trial in trials if trial.sync[: depth + 1] == prefix]
            tops = [trial.val_top1 for trial in below if trial.val_top1 is not None]
            share = (sum(tops) / len(tops) - low) / (high - low) if tops and high > low else 0.0
            is_best = found is not None and found.sync[: depth + 1] == prefix
            axes.plot(
                (depth, depth + 1),
                (_height(prefix[:-1]), _height(prefix)),
                color=_COLOURS[prefix[-1]],
                alpha=0.25 + 0.75 * share,
                linewidth=0.6 + 5 * len(below) / len(trials),
                zorder=3 if is_best else 2,
                marker="o" if is_best else None,
                markersize=4,
            )
    for kind, colour in _COLOURS.items():
        axes.plot([], [], color=colour, linewidth=3, label=kind)
    axes.legend(frameon=False, ncols=3, loc="upper left")
    axes.set(xlabel="stage, with the sync behind it (the best trial has dots)", xlim=(-0.1, STAGES + 0.1))
    axes.set_xticks([number + 0.5 for number in range(STAGES)], [str(number) for number in range(STAGES)])
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _height(prefix: Sequence[str]) -> float:
    """Where the node of a prefix lies, within -1 .. 1: a third of its parent's range each."""
    place, size = 0.0, 1.0
    for kind in prefix:
        size /= 3
        place += {"n": 2, "a": 0, "c": -2}[kind] * size
    return place


def network_picture(model: Model) -> Figure:
    """A branched network: blocks of both branches as wide as their expanded channels, syncs between them."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    widest = max(block.expanded for branch in range(model.branches) for block in model.blocks(branch))
    at = 0.0
    for number, stage in enumerate(model.stages):
        start = at
        for index in range(len(stage[0])):
            for branch, blocks in enumerate(stage):
                height = 0.8 * blocks[index].expanded / widest
                middle = 0.5 - branch if model.branches == 2 else 0.0
                axes.add_patch(
                    Rectangle((at, middle - height / 2), 0.8, height, color="#6f6f6f", linewidth=0)
                )
                axes.text(at + 0.4, middle + height / 2 + 0.02, str(blocks[index].expanded), ha="center",
                          fontsize=6)  # fmt: skip
            at += 1
        axes.text((start + at - 0.2) / 2, 1.08, f"stage {number}\n{stage[0][0].side} px", ha="center",
                  fontsize=7)  # fmt: skip
        kind = None if model.sync is None else model.sync[number]
        if kind in ("a", "c"):
            axes.plot((at, at), (-0.95, 0.95), color=_COLOURS[kind], linewidth=2.5)
            axes.text(at, -1.12, kind, ha="center", color=_COLOURS[kind])
        at += 0.3
    axes.set(xlim=(-0.3, at + 0.2), ylim=(-1.25, 1.35), xticks=[])
    axes.set_yticks([0.5, -0.5] if model.branches == 2 else [0], ["branch 0", "branch 1"][: model.branches])
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.set_title(f"{model.name}: expanded channels of blocks", fontsize=9)
    return figure
