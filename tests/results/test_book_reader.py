"""What stands in a book: its runs are read back, and what neq did not write is refused by name."""

import json

import openpyxl
import pytest
from openpyxl.comments import Comment
from openpyxl.worksheet.table import Table as ExcelTable

from neq.results import runs
from neq.results.book import write_book
from neq.results.book_reader import stored_runs
from neq.utils.errors import UserError
from tests.results.run_folders import configs, sweep_file, write_run


@pytest.fixture
def swept(tmp_path):
    """The runs of a sweep, of which one is missing and one unfinished, and their book."""
    path = sweep_file(tmp_path / "sweep.yaml")
    for at, config in enumerate(configs(path)[1:]):
        write_run(tmp_path / "runs", config, **({"stopped_after": 1} if at == 0 else {}))
    table = runs([path], tmp_path / "runs")
    write_book(tmp_path / "output.xlsx", table)
    return table, tmp_path / "output.xlsx"


def test_runs_are_read_back_as_they_were_written(swept):
    table, path = swept
    read = stored_runs(openpyxl.load_workbook(path), "output.xlsx").set_index("key").loc[table["key"]]
    assert list(read.columns) == list(table.set_index("key").columns)
    for name in read.columns:
        written = table.set_index("key")[name]
        if written.dtype == "float64":
            assert read[name].to_numpy() == pytest.approx(written.to_numpy(), rel=1e-12, nan_ok=True), name
        else:
            assert (
                read[name].astype(object).fillna("none").tolist()
                == written.astype(object).fillna("none").tolist()
            )


def column(sheet):
    sheet.cell(1, sheet.max_column + 1, "Remark")
    sheet.cell(2, sheet.max_column, "look at this")


def beside(sheet):
    sheet["BA7"] = "a note of mine"


def row(sheet):
    sheet.append(["a row of mine"])


def wrong_key(sheet):
    place = next(cell.column for cell in sheet[1] if cell.value == "Key (neq)")
    sheet.cell(3, place).value = json.dumps({"dataset": ["x"], "manual_seed": 0})


def note(sheet):
    sheet["A2"].comment = Comment("mine", "me")


def excel_table(sheet):
    reference = sheet.auto_filter.ref
    sheet.auto_filter.ref = None
    sheet.add_table(ExcelTable(displayName="Results", ref=reference))


@pytest.mark.parametrize(
    ("title", "change", "named"),
    [
        ("Summary", column, "'Remark' in Summary"),
        ("Runs", column, "'Remark' in Runs"),
        ("Charts", column, "'Remark' in Charts"),
        ("Summary", beside, "'BA7' in Summary"),
        ("Runs", row, "row 14, not of neq, in Runs"),
        ("Runs", wrong_key, "row 3, not of neq, in Runs"),
        ("Summary", note, "notes in Summary"),
        ("Summary", excel_table, "Excel tables in Summary"),
    ],
)
def test_what_others_put_into_our_sheets_is_refused_unless_forced(swept, title, change, named):
    table, path = swept
    book = openpyxl.load_workbook(path)
    change(book[title])
    book.save(path)
    before = path.read_bytes()
    with pytest.raises(UserError) as error:
        write_book(path, table)
    assert f"would be lost when it is written anew ({named}" in str(error.value)
    assert "--force" in str(error.value)
    assert path.read_bytes() == before
    assert write_book(path, table, force=True).earlier.read_bytes() == before
    write_book(path, table)  # it is a book of neq alone again


def test_rows_may_be_sorted_and_columns_moved(swept):
    table, path = swept
    book = openpyxl.load_workbook(path)
    sheet = book["Runs"]
    header, *rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    order = list(range(len(header)))[::-1]
    for at, values in enumerate([header, *rows[::-1]], 1):
        for place, source in enumerate(order, 1):
            sheet.cell(at, place).value = values[source]
    book.save(path)
    read = stored_runs(openpyxl.load_workbook(path), "output.xlsx")
    assert set(read["key"]) == set(table["key"])
    assert sorted(read["test_top1"].dropna()) == sorted(table["test_top1"].dropna())
    assert write_book(path, table).new == 0


def test_an_empty_book_is_not_ours(tmp_path):
    with pytest.raises(UserError, match=r"'x\.xlsx' is not a book of neq"):
        stored_runs(openpyxl.Workbook(), "x.xlsx")
