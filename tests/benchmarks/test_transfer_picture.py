"""The picture of the front page, from the recorded runs."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.transfer_picture import draw, main, points
from benchmarks.transfer_report import Report
from benchmarks.transfer_table import tables

REPORT = Report(Path(__file__).parents[2] / "benchmarks/transfer.json")


@pytest.mark.parametrize(("cost", "column"), [("step_seconds", -2), ("saved_bytes", -1)])
def test_costs_are_those_of_the_table(cost: str, column: int) -> None:
    rows = [line.strip("| ").split(" | ") for line in tables(REPORT).splitlines()[2:12]]
    found = {point.cell: point.cost for point in points(REPORT, cost)}
    assert list(found) == [row[0] for row in rows]
    assert found["full-train"] == 1
    for row in rows:
        text = row[column]
        expected = float(text.partition("(")[2].rstrip(")") or text)
        assert found[row[0]] == pytest.approx(expected, abs=0.0051 if cost == "step_seconds" else 0.00051)


def test_both_panels_show_every_cell() -> None:
    cells = len(points(REPORT, "saved_bytes"))
    for axes in draw(REPORT).axes:
        assert sum(len(np.asarray(marks.get_offsets())) for marks in axes.collections) == cells


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--report", str(tmp_path / "none.json")]) == 2
    assert main(["--output", str(tmp_path / "no" / "folder.png")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "holds no runs" in lines[0]
