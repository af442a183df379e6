"""The picture and the book of a sequence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from openpyxl import load_workbook

from neq.planning.sequence_book import ACCURACY, PLANS, write_book
from neq.planning.sequence_picture import draw
from neq.planning.sequence_record import SequenceRecord, StageResult


def window(epoch: int, **more: Any) -> dict[str, Any]:
    settings = {"norm_mode": "frozen", "saved_precision": "exact", "memory": "fast", "micro_batch_size": 8}
    return {
        **{"row": epoch, "explored": False, "epoch": epoch, "seconds": 9.0, "used": 2**20, "ended": "over"},
        **{"gain": None, "learns": f"{epoch} %", "peak": 2**21, "settings": settings},
        **more,
    }


@pytest.fixture
def record(tmp_path: Path) -> SequenceRecord:
    windows: list[Mapping[str, Any]] = [
        window(0),
        window(2, explored=True),
        window(3, ended="finished", learns="0 %"),
    ]
    stages = [
        StageResult("00_source", "source", "classification", {"source": 90.0}),
        StageResult("01_fog-1", "fog-1", "classification", {"source": 88.0, "fog-1": 75.5}, plans=windows),
    ]
    top1 = {"source": 90.0, "fog-1": 60.0}
    return SequenceRecord(tmp_path, [], stages, top1, {"source": 89.0, "fog-1": 70.0})


def test_the_table_of_plans(record: SequenceRecord) -> None:
    _, first, second, third = record.plan_rows()
    assert first == ["01_fog-1", "0 to 1", "0 %", "8", "1", "fast", "2.0", "1.0", "9", ""]
    assert second[1] == "2 to 2"
    assert second[-1] == "explored"
    assert third[1] == "from 3"
    assert third[-1] == "finished"


def test_the_book_holds_both_tables(record: SequenceRecord, tmp_path: Path) -> None:
    write_book(record, tmp_path / "a.xlsx")
    book = load_workbook(tmp_path / "a.xlsx")
    assert book.sheetnames == [ACCURACY, PLANS]
    accuracy = [[cell.value for cell in row] for row in book[ACCURACY].iter_rows()]
    assert accuracy == [
        ["network", "source", "fog-1"],
        ["source", 90, 60],
        ["statistics alone", 89, 70],
        ["after 01_fog-1", 88, 75.5],
    ]
    plans = [[cell.value for cell in row] for row in book[PLANS].iter_rows()]
    assert plans[1][:4] == ["01_fog-1", "0 to 1", "0 %", 8]
    assert len(plans) == 4


def test_without_plans_there_is_no_sheet_and_no_bar(record: SequenceRecord, tmp_path: Path) -> None:
    record.stages[1].plans.clear()
    write_book(record, tmp_path / "a.xlsx")
    assert load_workbook(tmp_path / "a.xlsx").sheetnames == [ACCURACY]
    assert len(draw(record).axes) == 1


def test_the_picture_has_a_part_for_each_window(record: SequenceRecord) -> None:
    figure = draw(record)
    above, below = figure.axes
    assert figure.get_suptitle() == record.folder.name
    assert [np.asarray(line.get_ydata()).tolist() for line in above.lines] == [
        *([90.0, 75.5], [90.0, 81.75], [90.0, 60.0], [89.0, 70.0]),
    ]
    parts = [part for part in below.patches if isinstance(part, Rectangle) and part.get_width()]
    assert [part.get_x() for part in parts] == [0, 9, 18]
    colours = [part.get_facecolor() for part in parts]
    assert colours[0] == colours[2] != colours[1]
    assert [bool(part.get_hatch()) for part in parts] == [False, True, False]
