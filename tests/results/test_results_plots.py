"""The pictures: what is in their artists, and the files."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from neq.cli import main
from neq.results import collect, group
from neq.results.pictures import STYLES, accuracy_by_budget, accuracy_by_cost, save_picture
from neq.results.run_pictures import Choices, chosen_picture, read_choices, velocity_picture
from neq.results.series import pareto_front
from tests.results.run_folders import configs, sweep_file, write_run
from tests.results.test_series import ALL, panels_of

ONE = "ratio: {value: .1}\n  neuron_selection: {value: velocity}"


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
    return Choices(
        tuple(f"features.{at}.conv.0.0" for at in range(layers)),
        sizes,
        tuple(range(epochs)),
        stream.random((epochs, total)) < 0.3,
        stream.normal(size=(epochs, total)).astype(np.float32),
    )


def test_a_line_is_at_the_means_of_its_policy(tmp_path):
    (panel,) = panels_of(tmp_path, ALL)
    figure = accuracy_by_budget(panel)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"]
    assert len(lines) == len(panel.series) == 2
    for line, series in zip(lines, panel.series, strict=True):
        np.testing.assert_allclose(line.get_ydata(), [point.top1.mean for point in series.points])
        # Beside the budget by little, so that bars of two policies do not hide one another.
        np.testing.assert_allclose(line.get_xdata(), [54318, 162953], rtol=0.02)
    assert not np.array_equal(lines[0].get_xdata(), lines[1].get_xdata())
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    assert axes.get_xlabel() == "budget (parameters)"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["54.3k", "163k"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["velocity", "random"]
    assert "mean ± standard deviation of 3 seeds, 12 of 12 runs" in figure.get_suptitle()


def test_bars_are_one_standard_deviation(tmp_path):
    (panel,) = panels_of(tmp_path, ALL)
    (axes,) = accuracy_by_budget(panel).axes
    heights = [
        segment[1][1] - segment[0][1]
        for collection in axes.collections
        for segment in collection.get_segments()
    ]
    np.testing.assert_allclose(sorted(heights), sorted(2 * point.top1.deviation for point in panel.points))


def test_one_seed_and_one_budget(tmp_path):
    (panel,) = panels_of(tmp_path, ONE)
    for figure in (accuracy_by_budget(panel), accuracy_by_cost(panel)):
        assert "1 seed, 1 of 1 runs" in figure.get_suptitle()
        assert not [axes.collections for axes in figure.axes if axes.collections]  # no bars of nothing
        assert overlap(figure) == []
        for axes in figure.axes:
            low, high = axes.get_xlim()
            places = {float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata())}
            assert places
            assert all(low < place < high for place in places)


def test_everything_at_once_is_a_level_to_reach(tmp_path):
    more = ALL.replace("[velocity, random]", "[velocity, full]").replace("[.3, .1]", "[1.0]")
    (panel,) = panels_of(tmp_path, more)
    (axes,) = accuracy_by_budget(panel).axes
    full = next(series for series in panel.series if series.policy == "full").points[0]
    levels = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in levels] == [full.top1.mean]


def test_budgets_that_span_much_are_on_a_logarithmic_axis(tmp_path):
    (wide,) = panels_of(tmp_path, ALL.replace("[.3, .1]", "[.01, .1, .9]"))
    assert accuracy_by_budget(wide).axes[0].get_xscale() == "log"
    series = [
        replace(series, points=(replace(series.points[0], budget=0.0), *series.points[1:]))
        for series in wide.series
    ]
    figure = accuracy_by_budget(replace(wide, series=tuple(series)))
    assert figure.axes[0].get_xscale() == "linear"
    assert overlap(figure) == []


def test_budgets_in_bytes_are_shown_in_mebibytes(tmp_path):
    budgets = "budget: {values: [8388608, 16777216]}\n  budget_unit: {value: bytes}"
    (panel,) = panels_of(tmp_path, f"{budgets}\n  neuron_selection: {{value: velocity}}")
    (axes,) = accuracy_by_budget(panel).axes
    assert axes.get_xlabel() == "budget (MiB of training memory)"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "16"]


def test_costs_are_three_panels_with_the_front_filled(tmp_path):
    (panel,) = panels_of(tmp_path, ALL)
    figure = accuracy_by_cost(panel)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels[:2] == ["time of a step (ms)", "kept for backward (MiB)"]
    assert labels[2] == "peak memory (MiB, maximum of the process)"
    costs = [(point.costs["step_seconds"].mean * 1000, point.top1.mean) for point in panel.points]
    front = {tuple(np.round(costs[at], 6)) for at in pareto_front(costs)}
    markers = {marker for _, marker, _ in STYLES}
    points = [line for line in figure.axes[0].lines if line.get_marker() in markers and len(line.get_xdata())]
    assert len(points) == 4
    for line in points:
        place = (round(float(line.get_xdata()[0]), 6), round(float(line.get_ydata()[0]), 6))
        assert (line.get_markerfacecolor() != "white") == (place in front)
    assert [text.get_text() for text in figure.axes[0].texts] == ["10 %", "30 %"]
    assert overlap(figure) == []


def test_a_cost_that_no_run_recorded_is_said_to_be_missing(tmp_path):
    (panel,) = panels_of(tmp_path, ALL, saved_bytes=None)
    axes = accuracy_by_cost(panel).axes[1]
    assert [text.get_text() for text in axes.texts] == ["not recorded"]


def test_several_devices_are_named(tmp_path):
    path = sweep_file(tmp_path / "sweep.yaml", ALL)
    for at, config in enumerate(configs(path)):
        device = {"device": "cuda", "peak_memory_kind": "torch"} if at % 2 else {}
        write_run(tmp_path / "runs", config, **device)
    from neq.results.series import panels

    (panel,) = panels(group(collect([path], tmp_path / "runs")))
    figure = accuracy_by_cost(panel)
    assert "on cpu and cuda" in figure.get_suptitle()
    assert figure.axes[2].get_xlabel() == "peak memory (MiB, measured in several ways)"


def test_styles_differ_without_colour():
    assert len({(marker, line) for _, marker, line in STYLES}) == len(STYLES)
    assert len({marker for _, marker, _ in STYLES}) == len(STYLES)


@pytest.mark.parametrize("rates", [2, 6, 12])
def test_long_legends_fit_and_hide_nothing(tmp_path, rates):
    listed = ", ".join(str(at / 100) for at in range(1, rates + 1))
    more = f"{ONE}\n  base_lr: {{values: [{listed}]}}\n  manual_seed: {{values: [0, 1]}}"
    (panel,) = panels_of(tmp_path, more)
    for figure in (accuracy_by_budget(panel), accuracy_by_cost(panel)):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert len(legend.get_texts()) >= rates
        assert all(not box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
        assert outside(figure) == []
        assert overlap(figure) == []


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


@pytest.mark.parametrize(("layers", "epochs"), [(1, 1), (3, 1), (52, 125), (161, 10)])
def test_layers_are_named_legibly_however_many(layers, epochs):
    known = choices(layers, epochs)
    for figure in (velocity_picture(known, "a run"), chosen_picture(known, "a run")):
        assert overlap(figure) == []
        assert outside(figure) == []
        ticks = [tick for tick in figure.axes[0].get_xticks() if -0.5 <= tick <= epochs - 0.5]
        assert ticks == [round(tick) for tick in ticks]


def test_a_picture_is_a_png_and_an_svg_and_the_same_every_time(tmp_path):
    known = choices()
    paths = save_picture(chosen_picture(known, "a run"), tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.svg"]
    with Image.open(paths[0]) as picture:
        assert picture.size == (1350, 480)
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    before = [path.read_bytes() for path in paths]
    save_picture(chosen_picture(known, "a run"), tmp_path / "a.b")
    assert [path.read_bytes() for path in paths] == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.b.png", "a.b.svg"}


def test_choices_are_read_as_the_run_wrote_them(tiny_run):
    known = read_choices(tiny_run)
    layers = json.loads((tiny_run / "selection" / "table.json").read_text())["layers"]
    assert known.layers == tuple(layer["name"] for layer in layers)
    assert known.chosen.shape == known.velocity.shape == (1, sum(known.sizes))
    costs = np.repeat([layer["parameters"] for layer in layers], known.sizes)
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert (known.chosen[0] * costs).sum() == summary["selected_parameters_max"]


@pytest.fixture
def swept(tmp_path, tiny_run):
    """A sweep of two settings; the first has the choices of a real run, the second none."""
    import shutil

    path = sweep_file(
        tmp_path / "sweep.yaml", "ratio: {values: [.1, .3]}\n  neuron_selection: {value: velocity}"
    )
    first, _ = (write_run(tmp_path / "runs", config) for config in configs(path))
    shutil.copytree(tiny_run / "selection", first / "selection")
    return path


def test_the_command_draws_everything_and_says_what_it_could_not(swept, tmp_path, capsys):
    arguments = [
        "results",
        "plot",
        str(swept),
        "--runs-dir",
        str(tmp_path / "runs"),
        "-o",
        str(tmp_path / "p/q"),
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "p/q").iterdir()}
    run = "mcunet-in0-digits-velocity-54318-seed0"
    stems = ("budget-digits-mcunet-in0", "cost-digits-mcunet-in0", f"chosen-{run}", f"velocity-{run}")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert all(name in out for name in names)
    assert "selection cannot be read (No such file or directory)" in out
    assert main([*arguments, "--choices", "0"]) == 0  # again, over its own pictures
    assert "cannot be read" not in capsys.readouterr().out


def test_selections_that_cannot_be_read(swept, tmp_path, tiny_run):
    from neq.utils.errors import UserError

    (folder,) = {path.parent.parent for path in (tmp_path / "runs").rglob("table.json")}
    epoch = folder / "selection" / "00000.npz"
    epoch.rename(folder / "selection" / "00001.npz")
    with pytest.raises(UserError, match="lacks an epoch"):
        read_choices(folder)
    epoch.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        read_choices(folder)
    epoch.unlink()
    (folder / "selection" / "00001.npz").unlink()
    with pytest.raises(UserError, match="holds no epoch yet"):
        read_choices(folder)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--choices", "-1"], "0 or more"),
        (["--runs-dir", "nowhere"], "none of the 2 runs of these sweeps is done"),
        (["-o", "{sweep}"], "cannot be written"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_mistakes_are_one_line_and_code_2(swept, tmp_path, capsys, more, line):
    given = [part.format(sweep=swept) for part in more]
    assert main(["results", "plot", str(swept), "--runs-dir", str(tmp_path / "runs"), *given]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
