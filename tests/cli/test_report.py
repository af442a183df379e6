"""`neq report`."""

import shutil

import openpyxl
import pytest

from neq.cli import main
from neq.results.report import pdf


@pytest.mark.slow
def test_a_page_and_a_book(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["report", str(run), "--no-speed", "--xlsx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"neq: {run}: evaluating the test split of digits"
    assert [line.partition(":")[0] for line in lines[1:]] == ["report.html", "report.xlsx"]
    assert "mcunet-in0 on digits" in (tmp_path / "report.html").read_text()
    assert openpyxl.load_workbook("report.xlsx").sheetnames == ["Summary", "Classes", "Confused"]
    assert not (run / "speed.json").exists()
    before = (tmp_path / "report.html").read_bytes()
    assert main(["report", str(run), "--no-speed"]) == 2
    assert "--output report.html exists; --force replaces it" in capsys.readouterr().err
    weights = run / "checkpoint" / "best.safetensors"
    assert main(["report", str(weights), "--no-speed", "--force"]) == 0
    assert capsys.readouterr().out.startswith("report.html")
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_pdf_without_a_browser_is_refused_before_anything_is_computed(
    tiny_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pdf, "BROWSERS", ())
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(tiny_run), "--pdf"]) == 2
    err = capsys.readouterr().err
    assert "neither is installed" in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "required: RUN_DIR"),
        (["{tmp}"], "holds no run"),
        (["{run}", "{run}"], "is given twice"),
        (["{run}", "--output", "report.pdf"], "let it end in .html"),
        (["{run}", "--output", "no/report.html"], "does not exist; make it first"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(tiny_run, tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    given = [part.format(run=tiny_run, tmp=tmp_path) for part in arguments]
    assert main(["report", *given, "--no-speed"]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
