"""The pictures of one run: what is in their artists, and the files."""

import numpy as np
import pytest
from PIL import Image

from neq.results import plot_curves, plot_selection
from neq.results.run_pictures import chosen_picture, velocity_picture
from tests.results.figures import choices, outside, overlap


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
    colours = np.unique(pixels(tmp_path / "a.png") @ [1, 2**8, 2**16])
    assert len(colours) > 6


def test_velocities_are_quantiles_of_each_layer():
    known = choices()
    figure = velocity_picture(known, "a run")
    maps = [axes.images[0].get_array() for axes in figure.axes[:3]]
    assert all(picture.shape == (3, 4) for picture in maps)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["10% quantile", "median", "90% quantile"]
    second = np.abs(known.velocity)[2, known.sizes[0] : known.sizes[0] + known.sizes[1]]
    for picture, quantile in zip(maps, (0.1, 0.5, 0.9), strict=True):
        assert picture[1, 2] == pytest.approx(np.quantile(second, quantile), rel=1e-5)
    assert figure.axes[0].get_yticklabels()[0].get_text() == f"features.0.conv.0.0 ({known.sizes[0]})"


def test_an_epoch_without_velocities_and_neurons_that_stand_still():
    known = choices()
    known.velocity[0] = np.nan
    known.velocity[1] = 0
    picture = velocity_picture(known, "a run").axes[1].images[0].get_array()
    assert np.ma.getmaskarray(picture)[:, 0].all()
    assert (picture[:, 1] <= picture[:, 2:].min()).all()


def test_chosen_neurons_are_shares_of_each_layer():
    known = choices()
    figure = chosen_picture(known, "a run")
    first = known.chosen[:, : known.sizes[0]]
    heat, bars = figure.axes[:2]
    np.testing.assert_allclose(heat.images[0].get_array()[0], 100 * first.mean(axis=1), rtol=1e-5)
    widths = [bar.get_width() for bar in bars.patches]
    assert widths[0] == pytest.approx(100 * first.any(axis=0).mean())
    assert widths[3] == pytest.approx(100 * first.mean())
    assert bars.patches[0].get_hatch() == "////"


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "epochs"), [(1, 1), (3, 1), (52, 125), (161, 10)])
def test_layers_are_named_legibly_however_many(layers, epochs):
    known = choices(layers, epochs)
    for figure in (velocity_picture(known, "a run"), chosen_picture(known, "a run")):
        assert overlap(figure) == []
        assert outside(figure) == []
        ticks = [tick for tick in figure.axes[0].get_xticks() if -0.5 <= tick <= epochs - 0.5]
        assert ticks == [round(tick) for tick in ticks]
