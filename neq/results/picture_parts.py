"""What every picture shares: the map of layers by epochs, and the file that it becomes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from neq.utils.atomic_files import atomic_file


def heat_map(axes: Axes, values: NDArray[np.floating], epochs: Sequence[int], **scale: Any) -> AxesImage:
    """Draws a value a layer and epoch: layers downwards, epochs to the right; lighter is more, in print too.

    Args:
        axes: empty ones.
        values: [L, E].
        epochs: their E numbers, one after another.
        scale: which values the colours reach over, as imshow takes it.
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
