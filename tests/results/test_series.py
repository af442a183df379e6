"""Groups of runs as points and series."""

import itertools

import pytest

from neq.results import groups, runs
from neq.results.series import panels, pareto_front, value_of
from tests.results.run_folders import configs, sweep_file, write_run

ALL = """ratio: {values: [.3, .1]}
  neuron_selection: {values: [velocity, random]}
  manual_seed: {values: [0, 42, 100]}"""


def panels_of(tmp_path, more, skip=lambda at: False, **summary):
    path = sweep_file(tmp_path / "sweep.yaml", more)
    for at, config in enumerate(configs(path)):
        if not skip(at):
            write_run(tmp_path / "runs", config, **summary)
    return panels(groups(runs([path], tmp_path / "runs")))


def test_a_series_is_a_policy_and_its_points_are_budgets(tmp_path):
    (panel,) = panels_of(tmp_path, ALL)
    assert (panel.dataset, panel.network, panel.unit) == ("digits", "mcunet-in0", "parameters")
    assert (panel.done, panel.expected) == (12, 12)
    assert {series.name for series in panel.series} == {"velocity", "random"}
    for series in panel.series:
        assert [point.budget for point in series.points] == [54318, 162953]
        assert [point.top1.count for point in series.points] == [3, 3]
    velocity = next(series for series in panel.series if series.name == "velocity")
    # run_folders: 80 + 1.5 + 10 ratio + seed % 7 / 3; seeds 0, 42, 100 give 0, 0, 2 / 3.
    assert velocity.points[0].top1.mean == pytest.approx(82.5 + 2 / 9)
    assert velocity.points[0].top1.deviation == pytest.approx(2 / 3 / 3**0.5)
    assert velocity.points[0].share == pytest.approx(100 * 54313 / 543176)
    assert velocity.points[1].costs["step_seconds"].mean == pytest.approx(0.038)


def test_runs_that_are_missing_are_counted_and_left_out(tmp_path):
    (panel,) = panels_of(tmp_path, ALL, skip=lambda at: at % 2 == 0 or at > 8)
    assert (panel.done, panel.expected) == (4, 12)
    assert all(1 <= point.top1.count <= 3 for point in panel.points)


def test_no_runs_are_no_panel(tmp_path):
    assert panels_of(tmp_path, ALL, skip=lambda at: True) == []


def test_settings_that_differ_are_named_and_budgets_are_not(tmp_path):
    more = "ratio: {values: [.1, .3]}\n  neuron_selection: {value: velocity}\n  base_lr: {values: [.01, .05]}"
    (panel,) = panels_of(tmp_path, more)
    assert [series.name for series in panel.series] == ["velocity, base_lr 0.01", "velocity, base_lr 0.05"]


def test_too_many_settings_are_drawn_by_policy(tmp_path):
    rates = ", ".join(str(at / 100) for at in range(1, 15))
    more = f"ratio: {{value: .1}}\n  neuron_selection: {{value: velocity}}\n  base_lr: {{values: [{rates}]}}"
    (panel,) = panels_of(tmp_path, more)
    assert [series.name for series in panel.series] == ["velocity, various settings"]
    assert [series.is_joined for series in panel.series] == [False]
    assert len(panel.points) == 14


def test_units_of_budgets_are_panels_of_their_own(tmp_path):
    more = "ratio: {value: .1}\n  neuron_selection: {value: velocity}\n  budget_unit: {values: [bytes, macs]}"
    assert [panel.unit for panel in panels_of(tmp_path, more)] == ["bytes", "macs"]


def test_costs_that_were_not_recorded_are_not_there(tmp_path):
    (panel,) = panels_of(tmp_path, ALL, saved_bytes=None)
    assert all(set(point.costs) == {"step_seconds", "peak_memory_bytes"} for point in panel.points)


def test_a_run_whose_accuracy_is_no_number_is_no_point(tmp_path):
    assert panels_of(tmp_path, ALL, test_top1=None) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, 3.0, None], (3.0, 0, 1)),
        ([1.0, 2.0, 4.0], (7 / 3, 1.5275252316519465, 3)),
        ([None, None, None], None),
    ],
)
def test_one_value_has_no_deviation(tmp_path, values, expected):
    path = sweep_file(tmp_path / "sweep.yaml", "manual_seed: {values: [0, 1, 2]}")
    for config, value in zip(configs(path), values, strict=True):
        write_run(tmp_path / "runs", config, val_top1=value)
    (row,) = (row for _, row in groups(runs([path], tmp_path / "runs")).iterrows())
    found = value_of(row, "val_top1")
    assert found == expected or (found.mean, found.deviation, found.count) == pytest.approx(expected)


def test_a_front_holds_what_nothing_beats():
    assert pareto_front([(1, 10), (2, 9), (3, 20), (3, 15), (4, 20)]) == [0, 2]
    points = [(x, y) for x, y in itertools.product((1.0, 2.0, 3.0), (5.0, 6.0))]
    for at, (cost, top1) in enumerate(points):
        beaten = any(c <= cost and t >= top1 and (c, t) != (cost, top1) for c, t in points)
        assert (at in pareto_front(points)) == (not beaten)
