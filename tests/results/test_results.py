import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from neq.results import plot_curves, plot_selection, summary_table


def row(epoch, **extra):
    layers = {"a": 100.0 - 10 * epoch, "b": 50.0}
    return {
        "epochs": epoch,
        "train": {"train/loss": 1.0 / (epoch + 1), "train/top1": 10.0 * epoch, "train/lr": 0.1},
        "Perc of frozen conv neurons": {"total": 70.0, "layer": layers},
        **extra,
    }


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_curves_show_what_was_measured(tmp_path):
    some = [row(0), row(1, valid={"val/loss": 0.5, "val/top1": 20.0}), row(2)]
    plot_curves(some, tmp_path / "a.png")
    plot_curves([row(epoch) for epoch in range(3)], tmp_path / "b.png")
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_a_single_epoch_and_a_missing_loss_are_drawn(tmp_path):
    odd = row(0, valid={"val/loss": None, "val/top1": 20.0})
    plot_curves([odd], tmp_path / "a.png")
    plot_selection([odd], tmp_path / "b.png")
    assert pixels(tmp_path / "a.png").shape[2] == pixels(tmp_path / "b.png").shape[2] == 3


def test_the_selection_picture_shows_every_share(tmp_path):
    plot_selection([row(epoch) for epoch in range(6)], tmp_path / "a.png")
    colours = np.unique(pixels(tmp_path / "a.png").reshape(-1, 3), axis=0)
    assert len(colours) > 6


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_and_says_what_counts(width):
    summary = {
        "dataset": "digits", "net_name": "mbv2", "seed": 3, "best_epoch": 4, "epochs": 9, "val_top1": None,
        "test_top1": 91.234, "neuron_selection": "velocity", "initialization": "SU",
        "budget_unit": "parameters", "budget_used_max": 1234,
        "budget": 1000,
        "selected_parameters_max": 1000, "selectable_parameters": 4000, "step_seconds": 0.0123,
        "trained_beside_max": {"biases": 1, "norms": 2, "head": 3}, "saved_bytes": 2**21,
        "peak_memory_bytes": 2**30, "peak_memory_kind": "maximum of the process",
    }  # fmt: skip
    console = Console(width=width, file=io.StringIO())
    console.print(summary_table(summary))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for said in ("91.23 %", "75.00 %", "0.0123", "2.0 MiB", "none"):
        assert said in text
