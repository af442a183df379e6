"""How values stand in cells."""

import zipfile

import openpyxl
import pytest

from neq.results.excel import Column, write_table
from tests.results.books import TWO, opened, values, write


def test_a_single_row_of_the_header_is_frozen_and_filters_cover_the_rows(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO))
    book = openpyxl.load_workbook(path)
    for title, rows in (("Summary", 2), ("Runs", 6)):
        sheet = book[title]
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref == f"A1:{openpyxl.utils.get_column_letter(sheet.max_column)}{rows + 1}"
        widths = [sheet.column_dimensions[cell.column_letter].width for cell in sheet[1]]
        assert all(8 <= width <= 62 for width in widths)
        hidden = [cell.value for cell in sheet[1] if sheet.column_dimensions[cell.column_letter].hidden]
        assert hidden == (["Run (neq)"] if title == "Runs" else [])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=1+1", "=1+1"),
        ("+1", "+1"),
        ("-1", "-1"),
        ("@SUM(A1)", "@SUM(A1)"),
        ("#N/A", "#N/A"),
        ("2026-01-01", "2026-01-01"),
        ("a\x07b", "a\\x07b"),
        ("caf\udce9", "caf\\udce9"),
        ("zażółć 日本 🙂", "zażółć 日本 🙂"),
        ("x" * 40_000, "x" * 32_767),
    ],
)
def test_text_stays_text_whatever_it_begins_with(tmp_path, results, name, written):
    (run,) = results("manual_seed: {value: 0}")
    run.summary["device"] = name
    path = tmp_path / "output.xlsx"
    for _ in range(2):  # the second time read, replaced and written again
        write(path, [run])
        (row,) = opened(path, "Runs")
        assert row["Device"].value == written
        assert row["Device"].data_type == "s"
    with zipfile.ZipFile(path) as archive:
        assert b"<f>" not in archive.read("xl/worksheets/sheet2.xml")
    quoted = written[0] in "=+-@"
    assert row["Device"].quotePrefix == quoted


def test_seeds_that_differ_beyond_15_digits_stay_two(tmp_path, results):
    seeds = [123_456_789_012_345_678, 123_456_789_012_345_679]
    path = tmp_path / "output.xlsx"
    for _ in range(2):  # written, and read and written again
        write(path, results(f"manual_seed: {{values: {seeds}}}"))
        assert [row["Seed"] for row in values(path, "Runs")] == [str(seed) for seed in seeds]
        assert values(path)[0]["Seeds done"] == 2


def printed(tmp_path, count):
    """The print settings of a table of so many columns of 20 characters."""
    book = openpyxl.Workbook()
    columns = [Column(f"c{at}", f"c{at}", width=20) for at in range(count)]
    write_table(book.active, columns, [{"c0": 1}], fit_to_width=True)
    book.save(tmp_path / "a.xlsx")
    return openpyxl.load_workbook(tmp_path / "a.xlsx").active


def test_a_wide_table_prints_legibly(tmp_path):
    """On as many pages side by side as its columns need, with the header and the first columns on each."""
    sheet = printed(tmp_path, 40)
    setup = sheet.page_setup
    assert (setup.orientation, str(setup.paperSize)) == ("landscape", sheet.PAPERSIZE_A4)
    assert sheet.sheet_properties.pageSetUpPr.fitToPage
    assert setup.fitToHeight == 0
    # 4 columns of 20 characters, less than half of the 190 of a page, are on each; 36 share the other 110.
    assert setup.fitToWidth == 7
    assert sheet.print_title_rows == "$1:$1"
    assert sheet.print_title_cols == "$A:$D"
    assert "&P" in str(sheet.oddFooter.right.text)


def test_a_narrow_table_prints_on_one_page(tmp_path):
    sheet = printed(tmp_path, 6)
    assert sheet.page_setup.fitToWidth == 1
    assert sheet.print_title_rows == "$1:$1"
    assert not sheet.print_title_cols
