"""The pictures beside a run's record: curves.png and selection.png."""

from __future__ import annotations

from pathlib import Path

from neq.config import data_title
from neq.runs import load_run, read_metrics
from neq.runs.layout import CURVES, SELECTION_PICTURE
from neq.utils.errors import UserError


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

    title = _title(folder)
    failed, plots = [], {CURVES: plot_curves, SELECTION_PICTURE: plot_selection}
    for name in missing:
        try:
            plots[name](metrics, folder / name, title)
        except OSError as error:
            failed.append(f"{name} cannot be written ({error.strerror})")
    return failed


def images_title(folder: Path) -> str | None:
    """What titles call the images of a run; none where its configuration cannot be read."""
    try:
        settings = load_run(folder).config.data_provider
    except UserError:
        return None
    return data_title(settings.dataset, settings.root)


def _title(folder: Path) -> str:
    """`mbv2 on photos, velocity, seed 0`; empty where the configuration cannot be read."""
    images = images_title(folder)
    if images is None:
        return ""
    config = load_run(folder).config
    named = f"{config.net_config.net_name} on {images}"
    return f"{named}, {config.NEq_config.neuron_selection}, seed {config.manual_seed}"
