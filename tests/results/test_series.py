"""Groups of runs as points and series."""

import itertools

import pytest

from neq.results import groups, runs
from neq.results.series import panels, pareto_front
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
    assert [name for name, _ in panel.series] == ["velocity", "random"]
    for _, points in panel.series:
        assert list(points["budget"]) == [54318, 162953]
        assert list(points["test_top1_count"]) == [3, 3]
        assert list(points["is_joined"]) == [True, True]
    velocity = dict(panel.series)["velocity"]
    # run_folders: 80 + 1.5 + 10 ratio + seed % 7 / 3; seeds 0, 42, 100 give 0, 0, 2 / 3.
    assert velocity["test_top1"].iloc[0] == pytest.approx(82.5 + 2 / 9)
    assert velocity["test_top1_std"].iloc[0] == pytest.approx(2 / 3 / 3**0.5)
    assert velocity["share"].iloc[0] == pytest.approx(100 * 54313 / 543176)
    assert velocity["step_seconds"].iloc[1] == pytest.approx(0.038)


def test_runs_that_are_missing_are_counted_and_left_out(tmp_path):
    (panel,) = panels_of(tmp_path, ALL, skip=lambda at: at % 2 == 0 or at > 8)
    assert (panel.done, panel.expected) == (4, 12)
    assert panel.points["test_top1_count"].between(1, 3).all()


def test_no_runs_are_no_panel(tmp_path):
    assert panels_of(tmp_path, ALL, skip=lambda at: True) == []


def test_settings_that_differ_are_named_and_budgets_are_not(tmp_path):
    more = "ratio: {values: [.1, .3]}\n  neuron_selection: {value: velocity}\n  base_lr: {values: [.01, .05]}"
    (panel,) = panels_of(tmp_path, more)
    assert [name for name, _ in panel.series] == ["velocity, base_lr 0.01", "velocity, base_lr 0.05"]


def test_too_many_settings_are_drawn_by_policy(tmp_path):
    rates = ", ".join(str(at / 100) for at in range(1, 15))
    more = f"ratio: {{value: .1}}\n  neuron_selection: {{value: velocity}}\n  base_lr: {{values: [{rates}]}}"
    (panel,) = panels_of(tmp_path, more)
    assert [name for name, _ in panel.series] == ["velocity, various settings"]
    assert not panel.points["is_joined"].any()
    assert len(panel.points) == 14


def test_units_of_budgets_are_panels_of_their_own(tmp_path):
    more = "ratio: {value: .1}\n  neuron_selection: {value: velocity}\n  budget_unit: {values: [bytes, macs]}"
    assert [panel.unit for panel in panels_of(tmp_path, more)] == ["bytes", "macs"]


def test_costs_that_were_not_recorded_are_not_there(tmp_path):
    (panel,) = panels_of(tmp_path, ALL, saved_bytes=None)
    known = panel.points[["step_seconds", "saved_bytes", "peak_memory_bytes"]].notna().all()
    assert known.to_dict() == {"step_seconds": True, "saved_bytes": False, "peak_memory_bytes": True}


def test_a_run_whose_accuracy_is_no_number_is_no_point(tmp_path):
    assert panels_of(tmp_path, ALL, test_top1=None) == []


def test_one_seed_has_a_deviation_of_nothing(tmp_path):
    (panel,) = panels_of(tmp_path, ALL, skip=lambda at: at % 3 > 0)
    assert list(panel.points["test_top1_count"]) == [1] * 4
    assert list(panel.points["test_top1_std"]) == [0] * 4


def test_a_front_holds_what_nothing_beats():
    assert pareto_front([(1, 10), (2, 9), (3, 20), (3, 15), (4, 20)]) == [0, 2]
    points = [(x, y) for x, y in itertools.product((1.0, 2.0, 3.0), (5.0, 6.0))]
    for at, (cost, top1) in enumerate(points):
        beaten = any(c <= cost and t >= top1 and (c, t) != (cost, top1) for c, t in points)
        assert (at in pareto_front(points)) == (not beaten)
