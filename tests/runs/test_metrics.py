"""The table of metrics, and that a further metric is one entry of it."""

import io
import json
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from PIL import Image

from neq.cli import main
from neq.results import groups, plot_curves, runs
from neq.results.best import best_run
from neq.results.book import write_book
from neq.results.pictures import accuracy_by_cost
from neq.results.series import panels
from neq.runs.metrics import METRICS, Metric, curves, quality_metrics, summary_metrics
from neq.sweeps import read_sweep
from neq.utils.errors import UserError
from tests.results.run_folders import configs, sweep_file, write_run

ROOT = Path(__file__).resolve().parents[2]
AGREEMENT = Metric("valid.val/agreement", "val_agreement", "valid/agreement at valid/best", "%", True, True)
ENERGY = Metric("step_millis", "step_millis", "Waiting time", "s", False, False)


@pytest.fixture
def registered(monkeypatch):
    for metric in (AGREEMENT, ENERGY):
        monkeypatch.setitem(METRICS, metric.key, metric)


@pytest.fixture
def swept(tmp_path):
    """Two finished runs; the second is better by the further metric, worse by the known ones."""
    path = sweep_file(tmp_path / "sweep.yaml", "manual_seed: {values: [0, 1]}")
    figures = ({"val_agreement": 97.0, "step_millis": 0.5}, {"val_agreement": 99.0, "step_millis": 0.75})
    for config, more in zip(configs(path), figures, strict=True):
        write_run(tmp_path / "runs", config, val_top1=90.0 - config.manual_seed, **more)
    return path


def test_entries_stand_under_their_keys_with_a_header_for_what_is_in_the_summary():
    assert all(key == metric.key for key, metric in METRICS.items())
    assert len(summary_metrics()) == sum(bool(metric.summary_key) for metric in METRICS.values())
    assert all(metric.header for metric in summary_metrics().values())
    assert {"val_top1", "val_loss", "test_top1"} <= set(quality_metrics())
    assert {"loss", "top1"} <= set(curves())
    assert (AGREEMENT.split, AGREEMENT.name, ENERGY.split, ENERGY.is_cost) == ("valid", "agreement", "", True)


def test_it_imports_neither_torch_nor_pandas():
    code = "import sys, neq.runs.metrics; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def bayes(tmp_path, name):
    more = f"base_lr: {{min: .01, max: .1}}\nmetric: {{name: {name}, goal: maximize}}"
    return sweep_file(tmp_path / "search.yaml", more, "bayes")


def test_a_further_metric_is_a_goal_of_sweeps(tmp_path, registered):
    assert read_sweep(bayes(tmp_path, AGREEMENT.key)).metric.name == AGREEMENT.key
    with pytest.raises(UserError, match=r"did you mean 'valid.val/agreement'"):
        read_sweep(bayes(tmp_path, "valid.val/agreemen"))


def test_it_is_no_goal_before(tmp_path):
    with pytest.raises(UserError, match=r"metric.name 'valid.val/agreement' is unknown"):
        read_sweep(bayes(tmp_path, AGREEMENT.key))


def test_a_further_metric_chooses_the_best(swept, tmp_path, registered):
    table = runs([swept], tmp_path / "runs")
    assert best_run(table)["seed"] == 0
    assert best_run(table, "val_agreement")["seed"] == 1


def test_a_further_metric_must_be_a_number_in_a_summary(swept, tmp_path, registered):
    (path,) = (path for path in (tmp_path / "runs").rglob("summary.json") if "/1-" in str(path))
    path.write_text(json.dumps({**json.loads(path.read_text()), "val_agreement": "high"}))
    damaged = runs([swept], tmp_path / "runs").iloc[1]
    assert damaged["state"] == "damaged"
    assert "val_agreement" in damaged["reason"]


def test_a_further_metric_is_in_every_table(swept, tmp_path, registered, capsys):
    table = runs([swept], tmp_path / "runs")
    assert list(table["val_agreement"]) == [97, 99]
    assert groups(table)["val_agreement"].tolist() == [98]
    assert main(["results", "table", str(swept), "--runs-dir", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "valid/agreement at valid/best (%)" in out
    assert "98 ± 1.4" in out
    assert (
        main(
            ["results", "best", str(swept), "--runs-dir", str(tmp_path / "runs"), "--metric", "val_agreement"]
        )
        == 0
    )
    assert "  val_agreement 99.0000" in capsys.readouterr().out


def test_a_further_metric_is_in_the_book(swept, tmp_path, registered):
    path = tmp_path / "output.xlsx"
    for _ in range(2):  # written, and read and written again
        write_book(path, runs([swept], tmp_path / "runs"))
    book = openpyxl.load_workbook(path)
    found = {}
    for title in ("Summary", "Runs"):
        header, *rows = book[title].iter_rows(values_only=True)
        found[title] = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["valid/agreement at valid/best (%)"] for row in found["Runs"]] == [97, 99]
    assert [row["Waiting time (ms)"] for row in found["Runs"]] == [500, 750]
    (summary,) = found["Summary"]
    assert summary["valid/agreement at valid/best (%)"] == 98
    assert summary["valid/agreement at valid/best std, n-1 (%)"] == pytest.approx(2**0.5)
    assert summary["Waiting time (ms)"] == 625
    assert "Waiting time / baseline" in summary


def test_a_further_metric_is_in_the_pictures(swept, tmp_path, registered):
    (panel,) = panels(groups(runs([swept], tmp_path / "runs")))
    labels = [axes.get_xlabel() for axes in accuracy_by_cost(panel).axes]
    assert labels[-1] == "waiting time (ms)"
    rows = [{"epochs": at, "valid": {"val/top1": 50.0 + at, "val/agreement": 80.0 + at}} for at in range(3)]
    plot_curves(rows, tmp_path / "curves.png")
    without = [{"epochs": at, "valid": {"val/top1": 50.0 + at}} for at in range(3)]
    plot_curves(without, tmp_path / "less.png")
    widths = [
        Image.open(io.BytesIO((tmp_path / name).read_bytes())).width for name in ("curves.png", "less.png")
    ]
    assert widths[0] == 2 * widths[1]  # a panel of its own
