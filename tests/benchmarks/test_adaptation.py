import json

import pytest

from benchmarks.adaptation import main
from benchmarks.adaptation_table import tables
from benchmarks.transfer_report import Report
from tests.adaptation.runs import domains
from tests.benchmarks.pages import ROOT, table_of

FAST = ["--network", "mcunet-in0", "--weights", "none", "--image-size", "16", "--epochs", "1"]
FAST += ["--transfers", "source-target", "--seeds", "1", "--methods", "source;mcc;adabn;labelled"]


@pytest.mark.slow
def test_runs_are_recorded_once_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    domains(tmp_path / "data")
    assert main(["--data", "data", *FAST]) == 0
    content = (tmp_path / "adaptation.json").read_bytes()
    runs = json.loads(content)["runs"]
    assert [run["cell"] for run in runs] == ["source", "mcc", "adabn", "labelled"]
    assert all(0 <= run["test_top1_all"] <= 100 for run in runs)
    assert not (tmp_path / "adaptation.runs/source-target/mcc-seed0/checkpoint").exists()
    capsys.readouterr()
    assert main(["--data", "data", *FAST]) == 0  # nothing is lacking
    assert (tmp_path / "adaptation.json").read_bytes() == content
    assert main(["--table"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    mcc = next(row for row in rows if row.startswith("| mcc"))
    assert f"{runs[1]['test_top1'] - runs[0]['test_top1']:+.1f} (n = 1)" in mcc
    assert main(["--data", "data", *FAST, "--image-size", "20"]) == 2
    assert "holds runs with image_size" in capsys.readouterr().err


def test_wrong_arguments_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    domains(tmp_path / "data")
    for arguments, message in (
        ([], "--data is missing"),
        (["--data", "data", "--methods", "mmc"], "method 'mmc' is unknown"),
        (["--data", "data", "--transfers", "source-nowhere"], "transfer 'source-nowhere' is unknown"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_the_page_holds_exactly_what_was_measured():
    assert table_of("docs/adaptation.md") == tables(Report(ROOT / "benchmarks/adaptation.json"))
