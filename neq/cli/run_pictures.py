"""The pictures beside a run's record: curves.png and selection.png."""

from __future__ import annotations

from pathlib import Path

from neq.runs import read_metrics
from neq.runs.layout import CURVES, SELECTION_PICTURE


def draw_missing(folder: Path) -> list[str]:
    """Draws the pictures that a run's folder lacks; returns a line for each that could not be written.

    Args:
        folder: of the run.
    """
    missing = [name for name in (CURVES, SELECTION_PICTURE) if not (folder / name).exists()]
    metrics = read_metrics(folder) if missing else []
    if not metrics:
        return []
    from neq.results import plot_curves, plot_selection

    failed, plots = [], {CURVES: plot_curves, SELECTION_PICTURE: plot_selection}
    for name in missing:
        try:
            plots[name](metrics, folder / name)
        except OSError as error:
            failed.append(f"{name} cannot be written ({error.strerror})")
    return failed
