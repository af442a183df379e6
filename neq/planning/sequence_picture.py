"""The picture of a sequence: accuracy after each stage, and which plan ran when, in what memory."""

from __future__ import annotations

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neq.planning.sequence_record import SequenceRecord

_GREY = "#9ca3af"


def draw(record: SequenceRecord) -> Figure:
    """Test top-1 of each stage's task and of all tasks so far; where tasks were planned, plans over time.

    Args:
        record: with a stage at least.
    """
    planned = [stage for stage in record.stages if stage.plans]
    figure = Figure(figsize=(10, 3.4 + (0.6 + 0.4 * len(planned) if planned else 0)), layout="constrained")
    if planned:
        above, below = figure.subplots(2, 1, height_ratios=(3, 1 + 0.4 * len(planned)))
        _draw_plans(below, record)
    else:
        above = figure.subplots()
    _draw_accuracies(above, record)
    figure.suptitle(record.folder.name, fontsize=9)
    return figure


def _draw_accuracies(axes: Axes, record: SequenceRecord) -> None:
    names, places = [stage.name for stage in record.stages], range(len(record.stages))
    own = [stage.top1[stage.task] for stage in record.stages]
    mean = [sum(stage.top1.values()) / len(stage.top1) for stage in record.stages]
    axes.plot(places, own, marker="o", label="on its task")
    axes.plot(places, mean, marker="o", label="on all tasks so far")
    for label, top1 in (("source", record.source), ("statistics alone", record.statistics)):
        if top1:
            axes.plot(places, [top1[stage.task] for stage in record.stages], "--", color=_GREY)
            axes.annotate(label, (len(names) - 1, top1[record.stages[-1].task]), fontsize=7, color=_GREY)
    axes.set_xticks(places, names, rotation=20, ha="right", fontsize=7)
    axes.set_ylabel("test top-1 (%)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_plans(axes: Axes, record: SequenceRecord) -> None:
    """A bar for each task, a part for each window as long as it took, in the colour of what it learns."""
    planned = [stage for stage in record.stages if stage.plans]
    learned = list(dict.fromkeys(window["learns"] for stage in planned for window in stage.plans))
    for place, stage in enumerate(planned):
        start = 0.0
        for window in stage.plans:
            axes.barh(
                place,
                window["seconds"],
                left=start,
                color=colormaps["tab10"](learned.index(window["learns"]) % 10),
                edgecolor="white",
                hatch="//" if window["explored"] else None,
            )
            label = f"{window['used'] / 2**20:,.0f}"
            axes.text(start + window["seconds"] / 2, place, label, ha="center", va="center", fontsize=6)
            start += window["seconds"]
    for number, name in enumerate(learned):
        axes.barh(0, 0, color=colormaps["tab10"](number % 10), label=name)
    axes.set_yticks(range(len(planned)), [stage.name for stage in planned], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of training; in the bars: MiB taken; hatched: explored")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
