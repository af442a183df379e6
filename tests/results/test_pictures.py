"""The pictures of sweeps: what is in their artists, and the files."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from neq.results import groups, runs
from neq.results.pictures import STYLES, accuracy_by_budget, accuracy_by_cost, save_picture
from neq.results.run_pictures import chosen_picture
from neq.results.series import panels, pareto_front
from tests.results.figures import choices, outside, overlap
from tests.results.run_folders import configs, sweep_file, write_run
from tests.results.test_series import ALL, panels_of

ONE = "ratio: {value: .1}\n  neuron_selection: {value: velocity}"


def test_a_line_is_at_the_means_of_its_policy(tmp_path):
    (panel,) = panels_of(tmp_path, ALL)
    figure = accuracy_by_budget(panel)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"]
    assert len(lines) == len(panel.series) == 2
    for line, (_, points) in zip(lines, panel.series, strict=True):
        np.testing.assert_allclose(line.get_ydata(), points["test_top1"])
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
    np.testing.assert_allclose(sorted(heights), sorted(2 * panel.points["test_top1_std"]))


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
    (full,) = dict(panel.series)["full"]["test_top1"]
    levels = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in levels] == [full]


def test_budgets_that_span_much_are_on_a_logarithmic_axis(tmp_path):
    (wide,) = panels_of(tmp_path, ALL.replace("[.3, .1]", "[.01, .1, .9]"))
    assert accuracy_by_budget(wide).axes[0].get_xscale() == "log"
    budgets = wide.points["budget"].where(wide.points["budget"] > wide.points["budget"].min(), 0.0)
    figure = accuracy_by_budget(replace(wide, points=wide.points.assign(budget=budgets)))
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
    assert labels[:2] == ["step time (ms)", "saved bytes (MiB)"]
    assert labels[2] == "peak memory (MiB, maximum of the process)"
    costs = list(zip(panel.points["step_seconds"] * 1000, panel.points["test_top1"], strict=True))
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
    (panel,) = panels(groups(runs([path], tmp_path / "runs")))
    figure = accuracy_by_cost(panel)
    assert "on cpu and cuda" in figure.get_suptitle()
    assert figure.axes[2].get_xlabel() == "peak memory (MiB, measured in several ways)"


def test_styles_differ_without_colour():
    assert len({(marker, line) for _, marker, line in STYLES}) == len(STYLES)
    assert len({marker for _, marker, _ in STYLES}) == len(STYLES)


@pytest.mark.slow
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
