"""What tests look for in figures, and what a run chose, made up."""

import numpy as np

from neq.runs.selection_file import SelectionHistory


def tick_labels(axes):
    """Those that are drawn."""
    drawn = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        drawn += [tick.label1 for tick in ticks if tick.label1.get_visible()]
        drawn += [tick.label2 for tick in ticks if tick.label2.get_visible()]
    return drawn


def overlap(figure):
    """Pairs of texts that lie upon one another, by what they say."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts]
        texts += tick_labels(axes)
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in texts
        if text.get_text() and text.get_visible()
    ]
    return [
        (one, other)
        for at, (one, box) in enumerate(boxes)
        for other, second in boxes[at + 1 :]
        if box.shrunk(0.9, 0.9).overlaps(second.shrunk(0.9, 0.9))
    ]


def outside(figure):
    """Texts that the edge of the picture cuts."""
    figure.draw_without_rendering()
    texts = [t for axes in figure.axes for t in (axes.xaxis.label, axes.yaxis.label, *tick_labels(axes))]
    texts += [t for legend in figure.legends for t in legend.get_texts()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [
        said
        for said, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1
    ]


def choices(layers=3, epochs=4):
    stream = np.random.default_rng(0)
    sizes = tuple(int(size) for size in stream.integers(4, 40, layers))
    total = sum(sizes)
    return SelectionHistory(
        tuple(f"features.{at}.conv.0.0" for at in range(layers)),
        sizes,
        tuple(range(epochs)),
        stream.random((epochs, total)) < 0.3,
        stream.normal(size=(epochs, total)).astype(np.float32),
    )
