from dataclasses import replace
from pathlib import Path

import pytest

from neq.results import collect, group
from neq.results.tables import (
    Check,
    add_ratios,
    best_rows,
    run_key,
    run_rows,
    settings_of_key,
    summary_rows,
    varying_settings,
)
from tests.results.run_folders import configs, sweep_file, write_run

ROOT = Path(__file__).resolve().parents[2]
TEST = "test/top1 at valid/best (%)"


@pytest.fixture
def collected(tmp_path):
    """The runs of a sweep file with these parameters, all done but those whose number is left out."""

    def of(more, without=(), name="sweep", **summary):
        file = sweep_file(tmp_path / f"{name}.yaml", more)
        for at, config in enumerate(configs(file)):
            if at not in without:
                write_run(tmp_path / "runs", config, **summary)
        return collect([file], tmp_path / "runs")

    return of


def test_figures_are_means_over_seeds_with_the_deviation_of_a_sample(collected):
    runs = collected("manual_seed: {values: [0, 1, 2]}")
    for run, top1, seconds in zip(runs, (80.0, 83.0, 89.0), (0.01, 0.02, 0.06), strict=True):
        run.summary.update(test_top1=top1, val_top1=top1 + 1, step_seconds=seconds, best_epoch=run.seed)
    (row,) = summary_rows(group(runs))
    assert row.cells[TEST] == pytest.approx(84.0)
    assert row.cells["test/top1 std, n-1 (%)"] == pytest.approx(21**0.5)  # (16 + 1 + 25) / 2
    assert row.cells["valid/best (%)"] == pytest.approx(85.0)
    assert row.cells["valid/best at epoch"] == 1
    assert row.cells["Average Stopping Epoch"] == 2  # of 3 epochs, from 0
    assert row.cells["Step time (ms)"] == pytest.approx(30.0)
    assert (row.cells["Seeds done"], row.cells["Seeds expected"]) == (3, 3)
    assert row.cells["Budget"] == 162953


def test_one_seed_has_no_deviation_and_a_missing_one_is_counted(collected):
    (row,) = summary_rows(group(collected("manual_seed: {values: [0, 1]}", without=[1])))
    assert row.cells[TEST] is not None
    assert row.cells["test/top1 std, n-1 (%)"] is None
    assert (row.cells["Seeds done"], row.cells["Seeds expected"]) == (1, 2)


def test_without_a_run_only_the_settings_are_told(collected):
    (row,) = summary_rows(group(collected("manual_seed: {value: 0}", without=[0])))
    assert row.cells["Budget"] == 162953  # what a ratio comes to, by the catalog
    assert row.cells["Model"] == "mcunet-in0"
    assert row.cells[TEST] is None
    assert row.cells["Average Stopping Epoch"] is None


def test_what_is_no_number_leaves_a_mean_empty(collected):
    runs = collected("manual_seed: {values: [0, 1, 2]}")
    runs[0].summary["val_top1"] = None  # as NaN is recorded
    runs[1].summary["step_seconds"] = float("nan")
    (row,) = summary_rows(group(runs))
    assert row.cells["valid/best (%)"] is None
    assert row.cells["valid/best std, n-1 (%)"] is None
    assert row.cells["Step time (ms)"] is None
    assert row.cells[TEST] is not None


def test_settings_never_mix_and_are_told_where_they_differ(collected):
    rows = summary_rows(group(collected("base_lr: {values: [.01, .1]}\n  manual_seed: {values: [0, 1]}")))
    assert len(rows) == 2
    assert varying_settings(rows) == ["base_lr"]
    assert [row.settings["base_lr"] for row in rows] == [0.01, 0.1]


def test_what_follows_from_the_scheme_is_not_told_again(tmp_path):
    rows = summary_rows(group(collect([ROOT / "policies/digits/su.yaml"], tmp_path)))
    assert len({tuple(row.settings["weight_update_ratio"]) for row in rows}) == 3
    assert varying_settings(rows) == []
    same_columns = [replace(row, cells={**row.cells, "Scheme": None, "Budget": None}) for row in rows]
    assert varying_settings(same_columns) == ["n_bias_update", "manual_weight_idx", "weight_update_ratio"]


def test_costs_are_held_against_full_training_with_the_same_other_settings(collected):
    runs = collected("neuron_selection: {values: [velocity, full]}\n  base_lr: {values: [.01, .1]}")
    for run in runs:
        full = run.config["neuron_selection"] == "full"
        run.summary["step_seconds"] = (0.1 if full else 0.025) * (1 + (run.config["base_lr"] == 0.1))
    runs = [run for run in runs if run.config["base_lr"] == 0.01 or run.config["neuron_selection"] != "full"]
    rows = summary_rows(group(runs))
    add_ratios(rows)
    ratios = {
        (row.settings["neuron_selection"], row.settings["base_lr"]): row.cells["Step time / baseline"]
        for row in rows
    }
    assert ratios == {("velocity", 0.01): 0.25, ("full", 0.01): 1.0, ("velocity", 0.1): None}


def test_full_under_a_budget_is_no_baseline(collected):
    runs = collected("neuron_selection: {values: [velocity, full]}")
    for run in runs:
        run.summary["selected_parameters_max"] = 1000
    rows = summary_rows(group(runs))
    add_ratios(rows)
    assert [row.cells["Saved bytes / baseline"] for row in rows] == [None, None]


def test_the_best_method_is_that_of_the_best_test_figure_under_one_budget(collected):
    rows = summary_rows(
        group(collected("ratio: {values: [.1, .3]}\n  neuron_selection: {values: [velocity, random]}"))
    )
    best = best_rows(rows)
    assert [row.settings["neuron_selection"] for row in rows if row.key in best] == ["velocity", "velocity"]
    # A method alone is not the best of anything.
    assert best_rows([row for row in rows if row.settings["neuron_selection"] == "velocity"]) == set()


def test_a_row_of_runs_says_everything(collected):
    done, missing = run_rows(collected("manual_seed: {values: [0, 1]}", without=[1]))
    assert done.cells["State"] == "done"
    assert done.cells["Reason"] is None
    assert done.cells["Saved bytes (MiB)"] == pytest.approx(1.2e7 / 2**20)
    assert done.cells["Trained beside: norms"] == 13664
    assert done.cells["Run"].endswith("0.3/0-" + done.cells["Run"].rpartition("-")[2])
    assert (missing.cells["State"], missing.cells["Reason"]) == ("missing", "no run")
    assert missing.cells["Seed"] == 1


def test_a_key_tells_the_settings_again(collected):
    runs = collected("base_lr: {values: [.01]}\n  manual_seed: {values: [7]}")
    settings = settings_of_key(run_key(runs[0]))
    assert settings == dict(runs[0].config)
    assert settings_of_key("what somebody wrote") is None
    assert settings_of_key("[1]") is None
    assert settings_of_key(None) is None


@pytest.mark.parametrize(
    ("check", "differs", "said"),
    [
        (Check(90.0, 90.0), False, "as recorded"),
        (Check(90.0, 90.0 + 1e-9), False, "as recorded"),
        (Check(90.0, 90.1), True, "differs"),
        (
            Check(90.0, 90.1, "recorded on cuda, measured on cpu"),
            True,
            "differs (recorded on cuda, measured on cpu)",
        ),
        (Check(90.0, None), True, "differs"),
        (Check(None, 90.0, "it is gone"), False, "not measured: it is gone"),
    ],
)
def test_a_figure_that_differs_says_so(check, differs, said):
    assert (check.differs, check.said) == (differs, said)


def test_evaluations_are_told_of_runs_and_of_groups(collected):
    runs = collected("manual_seed: {values: [0, 1, 2]}")
    figures = [run.summary["test_top1"] for run in runs]
    checks = {run_key(run): Check(figure, figure) for run, figure in zip(runs, figures, strict=True)}
    (row,) = summary_rows(group(runs), checks)
    assert row.cells["Evaluation"] == "as recorded"
    checks[run_key(runs[1])] = Check(figures[1] - 2, figures[1])
    checks[run_key(runs[2])] = Check(None, figures[2], "it is gone")
    (row,) = summary_rows(group(runs), checks)
    assert row.cells["Evaluation"] == "1 of 3 differs, 1 not measured"
    second = run_rows(runs, checks)[1]
    assert second.cells["Difference (points)"] == pytest.approx(-2)
    assert second.cells["test/top1 measured again (%)"] == pytest.approx(figures[1] - 2)
