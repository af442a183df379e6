"""`neq results table`: on the terminal, as CSV and as Parquet."""

import importlib.util

import pandas as pd
import pytest

from neq.cli import main, results_table
from tests.results.run_folders import configs, sweep_file, write_run


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A sweep of two policies and two seeds, one of which is missing."""
    monkeypatch.chdir(tmp_path)
    more = "neuron_selection: {values: [velocity, random]}\n  manual_seed: {values: [0, 1]}"
    path = sweep_file(tmp_path / "sweep.yaml", more)
    for config in configs(path)[:3]:
        write_run(tmp_path / "runs", config)
    return path


def test_a_row_a_setting_is_printed_and_a_row_a_run_written(swept, tmp_path, capsys):
    assert main(["results", "table", "sweep.yaml", "--csv", "runs.csv"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["network", "data", "set", "policy", "budget"]
    assert "test/top1 at valid/best (%)" in lines[0]
    velocity, random = lines[2:4]
    # run_folders: 80 + 1.5 + 10 * .3 + seed % 7 / 3
    assert all(text in velocity for text in ("velocity", "2/2", "84.67 ± 0.24"))
    assert all(text in random for text in ("random", "1/2", "38 "))
    assert lines[-1] == "runs.csv: 4 runs"
    table = pd.read_csv(tmp_path / "runs.csv")
    assert list(table["state"]) == ["done", "done", "done", "missing"]
    assert list(table["neuron_selection"]) == ["velocity", "random", "velocity", "random"]
    assert table["test_top1"].notna().tolist() == [True, True, True, False]


def test_a_parquet_file_keeps_values_and_types(swept, tmp_path):
    pytest.importorskip("pyarrow")
    from neq.results import runs

    assert main(["results", "table", "sweep.yaml", "--parquet", "runs.parquet"]) == 0
    expected = runs([swept], tmp_path / "runs")
    read = pd.read_parquet(tmp_path / "runs.parquet")
    assert list(read.columns) == list(expected.columns)
    assert read["test_top1"].equals(expected["test_top1"])


def test_without_pyarrow_parquet_is_refused_in_one_line(swept, tmp_path, monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        results_table, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name)
    )
    assert main(["results", "table", "sweep.yaml", "--parquet", "runs.parquet"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "neq: --parquet needs pyarrow, which is not installed; pip install 'neq[parquet]'\n",
    )
    assert not (tmp_path / "runs.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--csv", "nowhere/runs.csv"], "--csv nowhere/runs.csv: the folder nowhere does not exist"),
        (["--csv", "runs"], "--csv runs is a folder; give a file"),
        (["--csv", "sweep.yaml"], "--csv sweep.yaml exists; --force replaces it"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_mistakes_are_one_line_and_code_2(swept, tmp_path, capsys, arguments, line):
    before = swept.read_bytes()
    assert main(["results", "table", "sweep.yaml", *arguments]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
    assert swept.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "sweep.yaml"]


def test_force_replaces_a_file(swept, tmp_path):
    (tmp_path / "runs.csv").write_text("old")
    assert main(["results", "table", "sweep.yaml", "--csv", "runs.csv", "--force"]) == 0
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 4


def test_a_budget_is_shown_in_a_unit_of_its_size(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = sweep_file(tmp_path / "sweep.yaml", "budget: {values: [30ms, 64MiB, 192311]}")
    for config in configs(path):
        write_run(tmp_path / "runs", config)
    assert main(["results", "table", "sweep.yaml"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in (" 30 ms", " 64 MiB", " 192,311"))
