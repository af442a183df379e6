"""The reasons of failed cells, and the published table, in the book."""

from contextlib import closing
from pathlib import Path

import openpyxl
import pytest

from neq.cli import main
from neq.results import collect, runs
from neq.results.book import write_book
from neq.results.failures import with_failures
from neq.results.runs_of_sweep import read_sweeps
from neq.sweeps import read_sweep
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.storage import open_storage
from tests.results.run_folders import configs, sweep_file, write_run

POLICIES = Path(__file__).resolve().parents[2] / "policies"


def failing(tmp_path):
    """A sweep: its first cell is done, the second failed, the third was stopped, the rest wait."""
    file, runs = sweep_file(tmp_path / "sweep.yaml"), tmp_path / "runs"
    write_run(runs, configs(file)[0])
    sweep = read_sweep(file)
    name = sweep_name(sweep, "sweep", sweep.experiment().settings)
    with closing(CellQueue(open_storage(None, runs), name, sweep)) as queue:
        queue.begin()
        queue.claim("worker").done(90.0)
        queue.claim("worker").failed("too large for this device")
        queue.claim("worker").done(10.0, stopped=True)
    return file, runs


@pytest.mark.slow
def test_a_failed_cell_has_the_line_that_it_failed_with(tmp_path):
    file, runs = failing(tmp_path)
    found = with_failures(collect([file], runs), read_sweeps([file]), runs)
    assert [run.reason for run in found[:4]] == [
        "", "failed: too large for this device", "stopped early (early_terminate)", "no run"
    ]  # fmt: skip
    assert [run.state for run in found[:3]] == ["done", "missing", "missing"]


def test_without_a_storage_there_are_no_reasons_and_none_is_made(tmp_path):
    file, runs = sweep_file(tmp_path / "sweep.yaml"), tmp_path / "runs"
    found = with_failures(collect([file], runs), read_sweeps([file]), runs)
    assert {run.reason for run in found} == {"no run"}
    assert not runs.exists()


def test_the_book_and_the_command_report_the_reason(tmp_path, monkeypatch, capsys):
    failing(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["results", "book", "sweep.yaml"]) == 0
    assert "seed 0 of velocity: failed: too large for this device" in capsys.readouterr().out
    sheet = openpyxl.load_workbook("output.xlsx")["Runs"]
    values = [cell.value for row in sheet.iter_rows() for cell in row]
    assert values.count("failed: too large for this device") == 1


def test_the_published_table_is_a_sheet_where_it_has_the_runs(tmp_path):
    file = POLICIES / "c10" / "mbv2_baseline.yaml"
    for config in configs(file):
        write_run(tmp_path / "runs", config, test_top1=95.0 + config.manual_seed / 100)
    path = tmp_path / "output.xlsx"
    write_book(path, runs([file], tmp_path / "runs"))
    rows = list(openpyxl.load_workbook(path)["Published"].iter_rows(values_only=True))
    head = next(at for at, row in enumerate(rows) if "Model" in row)
    row = dict(zip(rows[head], rows[head + 1], strict=True))
    assert (row["Model"], row["Dataset"], row["Seeds done"]) == ("pre_trained_mbv2", "c10", 3)
    assert row["Published (%)"] == 95.93
    assert abs(row["Ours (%)"] - (95.0 + (0 + 0.42 + 1.0) / 3)) < 1e-9
    assert abs(row["Difference (points)"] - (row["Ours (%)"] - 95.93)) < 1e-9
