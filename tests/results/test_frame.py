"""The DataFrame of runs: its columns, their types, and the files that it is written to."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neq.results import collect, runs
from neq.results.frame import frame, settings_of_key, write_csv
from neq.results.grouping import groups
from neq.results.runs_of_sweep import run_key
from neq.results.series import panels
from neq.results.verdicts import Check
from tests.results.run_folders import configs, summary_of, sweep_file, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def swept(tmp_path):
    """A sweep of two seeds, the second of which is missing."""
    path = sweep_file(tmp_path / "sweep.yaml", "manual_seed: {values: [0, 1]}")
    write_run(tmp_path / "runs", configs(path)[0])
    return path


def test_a_row_of_a_run_holds_everything(swept, tmp_path):
    table = runs([swept], tmp_path / "runs")
    done, missing = table.to_dict("records")
    summary = summary_of(configs(swept)[0])
    for name in ("val_top1", "val_loss", "test_top1", "step_seconds", "saved_bytes", "peak_memory_bytes"):
        assert done[name] == summary[name]
    assert (done["state"], done["epochs"], done["best_epoch"]) == ("done", 3, 2)
    assert (done["dataset"], done["net_name"], done["neuron_selection"]) == (
        "digits",
        "mcunet-in0",
        "velocity",
    )
    assert (done["ratio"], done["base_lr"], done["budget_amount"]) == (0.3, 0.05, 162953)
    assert done["trained_norms"] == 13664
    assert Path(done["folder"]).name.startswith("0-")
    assert json.loads(done["mean_std"])["mean"] == [0.305, 0.305, 0.305]
    assert (missing["state"], missing["reason"], missing["seed"]) == ("missing", "no run", 1)
    assert table["reason"].isna().tolist() == [True, False]
    assert table["test_top1"].isna().tolist() == [False, True]


def test_columns_have_the_types_of_their_values(swept, tmp_path):
    types = runs([swept], tmp_path / "runs").dtypes.astype(str)
    assert (types["seed"], types["epochs"], types["n_epochs"]) == ("int64", "int64", "Int64")
    assert (types["test_top1"], types["base_lr"]) == ("float64", "float64")
    assert (types["state"], types["dataset"], types["use_validation"]) == ("string", "string", "boolean")


def test_runs_that_differ_in_their_seed_alone_share_their_setting(tmp_path):
    path = sweep_file(tmp_path / "sweep.yaml")
    table = runs([path], tmp_path / "runs")
    assert len(table) == 12
    assert table["key"].nunique() == 12
    assert (table.groupby("setting")["seed"].nunique() == 3).all()
    means = table.assign(test_top1=np.arange(12.0)).groupby(["neuron_selection", "ratio"])["test_top1"].mean()
    assert len(means) == 4


def test_no_runs_are_an_empty_frame_with_its_columns(swept, tmp_path):
    assert list(frame([]).columns) == list(runs([swept], tmp_path / "runs").columns)
    assert len(frame([])) == 0


def test_a_key_stands_for_its_settings(swept, tmp_path):
    run = collect([swept], tmp_path / "runs")[0]
    settings = {name: value for name, value in run.config.items() if name != "manual_seed"}
    assert settings_of_key(run_key(run)) == settings


def test_evaluations_stand_beside_what_was_recorded(swept, tmp_path):
    found = collect([swept], tmp_path / "runs")
    figure = found[0].summary["test_top1"]
    table = frame(found, {run_key(found[0]): Check(figure - 2, figure)})
    assert table["test_top1_again"][0] == pytest.approx(figure - 2)
    assert table["test_top1_difference"][0] == pytest.approx(-2)
    assert table["evaluation"][0] == "differs"
    assert table["evaluation"].isna().tolist() == [False, True]


def test_values_that_no_float_or_file_holds(swept, tmp_path):
    found = collect([swept], tmp_path / "runs")
    found[0].summary.update(device="caf\udce9", skipped_images=10**400, val_top1=float("inf"))
    table = frame(found)
    assert table["device"][0] == "caf\\udce9"
    assert table[["skipped_images", "val_top1"]].isna().all(axis=None)
    write_csv(table, tmp_path / "runs.csv")
    assert pd.read_csv(tmp_path / "runs.csv")["device"][0] == "caf\\udce9"


def test_a_csv_file_holds_every_run_and_column(swept, tmp_path):
    table = runs([swept], tmp_path / "runs")
    write_csv(table, tmp_path / "runs.csv")
    read = pd.read_csv(tmp_path / "runs.csv")
    assert list(read.columns) == list(table.columns)
    assert read["test_top1"][0] == table["test_top1"][0]
    assert list(read["state"]) == ["done", "missing"]


@pytest.mark.slow
def test_neq_and_training_do_not_import_pandas():
    """scikit-learn imports pandas if it can, so that it is made impossible here."""
    code = (
        "import sys; sys.modules['pandas'] = None; "
        "import neq, neq.experiment.run, neq.results, neq.runs.metrics; "
        "from neq.results import plot_curves, plot_selection, summary_table"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_images_of_ones_own_are_called_by_their_folder(tmp_path):
    path = sweep_file(tmp_path / "sweep.yaml", "manual_seed: {values: [0, 1]}")
    first, second = configs(path)
    write_run(tmp_path / "runs", first)
    folder = write_run(tmp_path / "runs", second)
    for name in ("identity.json", "config.yaml"):
        text = (folder / name).read_text().replace('"digits"', '"image_folder"')
        text = text.replace("dataset: digits", "dataset: image_folder")
        (folder / name).write_text(text.replace("root: null", f"root: {tmp_path / 'holiday'}"))
    found = runs([tmp_path / "runs"])
    assert sorted(found["data_set"]) == ["digits", "holiday"]
    by_setting = groups(found)
    assert sorted(by_setting["data_set"]) == ["digits", "holiday"]
    assert sorted(panel.dataset for panel in panels(by_setting)) == ["digits", "holiday"]
    (folder / "config.yaml").unlink()
    assert sorted(runs([tmp_path / "runs"])["data_set"]) == ["digits", "image_folder"]
