"""The columns of Summary and Runs."""

import math

import openpyxl
import pytest

from tests.results.books import TEST, THREE, TWO, opened, values, write

PUBLISHED = [
    "Model", "Scheme", "Budget", "Initialization", "Method", "valid/best (%)", "valid/best at epoch", TEST,
    "Average Stopping Epoch",
]  # fmt: skip


def test_the_summary_holds_the_published_columns_first_and_numbers_as_numbers(tmp_path, results):
    path = tmp_path / "output.xlsx"
    written = write(path, results(TWO))
    assert (written.settings, written.new, written.earlier) == (2, 2, None)
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Summary", "Runs", "Charts"]
    rows = opened(path)
    assert list(rows[0])[:11] == [*PUBLISHED, "Dataset", "Norm mode"]
    assert [row["Method"].value for row in rows] == ["velocity", "random"]
    for row in rows:
        for name in (*PUBLISHED[5:], "Budget", "Seeds done", "test/top1 std, n-1 (%)", "Step time (ms)"):
            assert isinstance(row[name].value, int | float), name
            assert row[name].data_type == "n"
        assert row[TEST].number_format == "0.00"
        assert row["Budget"].number_format == "#,##0"
    assert rows[0][TEST].value == pytest.approx(84.5 + 2 / 9)
    assert rows[0]["Budget"].value == 162953


def test_costs_stand_beside_their_ratio_to_full_training(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(THREE))
    rows = {row["Method"]: row for row in values(path)}
    assert rows["full"]["Step time / baseline"] == 1
    assert rows["velocity"]["Step time / baseline"] == pytest.approx(38 / 80)
    assert rows["velocity"]["Saved bytes / baseline"] == pytest.approx(0.3)
    assert rows["velocity"]["Peak memory / baseline"] == pytest.approx(930 / 1000)


def test_one_seed_a_missing_seed_and_nan_leave_cells_empty(tmp_path, results):
    runs = results("manual_seed: {values: [0, 1]}", without=[1])
    runs[0].summary["val_top1"] = math.nan
    path = tmp_path / "output.xlsx"
    write(path, runs)
    (row,) = values(path)
    assert row["valid/best (%)"] is None
    assert row["test/top1 std, n-1 (%)"] is None
    assert (row["Seeds done"], row["Seeds expected"]) == (1, 2)
    done, missing = values(path, "Runs")
    assert (done["State"], done["Reason"], done["valid/best (%)"]) == ("done", None, None)
    assert (missing["State"], missing["Reason"], missing[TEST]) == ("missing", "no run", None)
