import io
from dataclasses import replace

import openpyxl
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image as Picture
from openpyxl.styles import Font, PatternFill
from openpyxl.worksheet.table import Table as ExcelTable
from pandas import DataFrame
from pandas.testing import assert_frame_equal
from PIL import Image

from neq.results import book as book_module
from neq.results import collect, groups
from neq.results.frame import frame
from neq.results.runs_of_sweep import run_key
from neq.results.verdicts import Check
from neq.runs import RecordHeader, Stretch
from neq.runs.environment import Environment
from neq.utils.errors import UserError
from tests.results.books import TEST, THREE, TWO, opened, values, write
from tests.results.run_folders import configs, sweep_file, write_run


def test_the_best_method_is_bold_and_no_other(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO))
    bold = [(row["Method"].font.b, row[TEST].font.b, row["Model"].font.b) for row in opened(path)]
    assert bold == [(True, True, False), (False, False, False)]


def test_without_any_run_the_book_says_so(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO, without=range(6)))
    assert [row["Seeds done"] for row in values(path)] == [0, 0]
    assert [row["State"] for row in values(path, "Runs")] == ["missing"] * 6
    assert openpyxl.load_workbook(path)["Charts"]._charts == []


def test_writing_again_changes_nothing_but_what_changed(tmp_path, results):
    path = tmp_path / "output.xlsx"
    runs = results(THREE)
    write(path, runs)
    first = [values(path, title) for title in ("Summary", "Runs", "Charts")]
    write(path, runs)
    assert [values(path, title) for title in ("Summary", "Runs", "Charts")] == first


def test_a_baseline_that_is_in_the_book_is_one_for_new_rows(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results("neuron_selection: {value: full}\n  initialization: {value: full}", name="full"))
    write(path, results(TWO))
    ratios = {row["Method"]: row["Step time / baseline"] for row in values(path)}
    assert ratios == {"full": 1, "velocity": pytest.approx(38 / 80), "random": pytest.approx(38 / 80)}


def test_runs_are_read_back_as_they_were_written(tmp_path, results):
    table = frame(results(TWO, without=[0]))
    book = openpyxl.Workbook()
    book_module._write_runs(book.create_sheet("Runs"), table, groups(table))
    read = book_module._stored_runs(book).set_index("key").loc[table["key"]].reset_index()
    assert_frame_equal(read[table.columns], table)


def test_rows_may_be_sorted_and_columns_moved(tmp_path, results):
    path = tmp_path / "output.xlsx"
    runs = results(TWO)
    write(path, runs)
    book = openpyxl.load_workbook(path)
    for sheet in (book["Summary"], book["Runs"]):
        header, *rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
        for at, row in enumerate([header, *rows[::-1]], 1):
            for place, value in enumerate(row[::-1], 1):
                sheet.cell(at, place).value = value
    book.save(path)
    written = write(path, runs)
    assert (written.settings, written.new) == (2, 0)
    rows = opened(path)
    assert [row["Method"].value for row in rows] == ["velocity", "random"]
    assert [row["Method"].font.b for row in rows] == [True, False]


def test_figures_measured_again_are_kept_and_forgotten_when_a_run_changes(tmp_path, results):
    runs = results("manual_seed: {values: [0, 1]}")
    figure = runs[1].summary["test_top1"]
    checks = {
        run_key(runs[0]): Check(runs[0].summary["test_top1"], runs[0].summary["test_top1"]),
        run_key(runs[1]): Check(figure - 2, figure),
    }
    path = tmp_path / "output.xlsx"
    write(path, runs, checks)
    rows = opened(path, "Runs")
    assert [row["Evaluation"].value for row in rows] == ["as recorded", "differs"]
    assert rows[1]["Difference (points)"].value == pytest.approx(-2)
    assert rows[1]["Evaluation"].font.color.rgb == "00B00020"
    assert values(path)[0]["Evaluation"] == "1 of 2 differs"
    write(path, runs)
    assert values(path, "Runs")[1]["Evaluation"] == "differs"
    runs[1].summary["test_top1"] = figure - 2  # trained again
    write(path, runs)
    again = values(path, "Runs")
    assert [row["Evaluation"] for row in again] == ["as recorded", None]
    assert again[1]["Difference (points)"] is None
    assert "Evaluation" not in values(path)[0]


def test_a_missing_row_becomes_the_run_when_its_images_are_known(tmp_path):
    file = sweep_file(tmp_path / "sweep.yaml")
    head = file.read_text().partition("  dataset")[0]
    more = (
        f"  dataset: {{value: image_folder}}\n  root: {{value: {tmp_path}}}\n  manual_seed: {{values: [0]}}\n"
    )
    file.write_text(head + more)
    path = tmp_path / "output.xlsx"
    write(path, collect([file], tmp_path / "runs"))
    write_run(tmp_path / "runs", configs(file)[0], images="abc")
    written = write(path, collect([file], tmp_path / "runs"))
    assert (written.settings, written.new) == (1, 0)
    assert [row["Seeds done"] for row in values(path)] == [1]
    assert [row["State"] for row in values(path, "Runs")] == ["done"]


def another_value(sheet):
    sheet["A2"] = "mine"


def column(sheet):
    sheet.cell(1, sheet.max_column + 1, "Remark")
    sheet.cell(2, sheet.max_column, "look at this")


def far_away(sheet):
    sheet.cell(1_048_576, 1).value = "x"


def a_row_less(sheet):
    sheet.delete_rows(2)


def note(sheet):
    sheet["A2"].comment = Comment("mine", "me")


def excel_table(sheet):
    reference = sheet.auto_filter.ref
    sheet.auto_filter.ref = None
    sheet.add_table(ExcelTable(displayName="Results", ref=reference))


def picture(sheet):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, format="png")
    sheet.add_image(Picture(content), "C5")


def chart(sheet):
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=4, min_row=1, max_row=3))
    sheet.add_chart(chart, "A40")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "change"),
    [
        ("Summary", another_value), ("Runs", column), ("Charts", column), ("Summary", far_away),
        ("Runs", a_row_less), ("Summary", note), ("Summary", excel_table), ("Summary", picture),
        ("Charts", chart),
    ],
)  # fmt: skip
def test_what_others_put_into_our_sheets_is_refused_unless_forced(tmp_path, results, title, change):
    path = tmp_path / "output.xlsx"
    runs = results(TWO)
    write(path, runs)
    book = openpyxl.load_workbook(path)
    change(book[title])
    book.save(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"would be lost .*\(changes in {title}\).*--force"):
        write(path, runs)
    assert path.read_bytes() == before
    assert not (tmp_path / "output.xlsx.bak").exists()
    assert write(path, runs, force=True).earlier.read_bytes() == before
    write(path, runs)  # it is a book of neq alone again


@pytest.mark.parametrize("titles", [["Sheet"], ["Runs", "Charts"], ["Summary"], []])
def test_a_book_that_is_not_ours_is_refused_even_when_forced(tmp_path, results, titles):
    path = tmp_path / "output.xlsx"
    book = openpyxl.Workbook()
    for title in titles:
        book.create_sheet(title)["A1"] = "something"
    book.save(path)
    before = path.read_bytes()
    for force in (False, True):
        with pytest.raises(UserError, match="is not a book of this version of neq; give another name"):
            write(path, results(TWO), force=force)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["output.xlsx", "runs", "sweep.yaml"]


def test_runs_that_somebody_damaged_are_refused_even_when_forced(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO))
    book = openpyxl.load_workbook(path)
    sheet = book["Runs"]
    place = next(cell.column for cell in sheet[1] if cell.value == "Run (neq)")
    for damage in ("{", "[]", '{"key": "{}"}', '{"key": "[1]", "epochs": 1}'):
        sheet.cell(3, place).value = damage
        book.save(path)
        with pytest.raises(UserError, match="holds runs that cannot be read"):
            write(path, results(TWO), force=True)


def test_a_deleted_sheet_comes_back(tmp_path, results):
    path = tmp_path / "output.xlsx"
    runs = results(TWO)
    write(path, runs)
    book = openpyxl.load_workbook(path)
    del book["Charts"], book["Runs"]
    book.save(path)
    write(path, runs)
    assert openpyxl.load_workbook(path).sheetnames == ["Summary", "Runs", "Charts"]
    assert len(openpyxl.load_workbook(path)["Charts"]._charts) == 1


def test_sheets_of_others_survive_an_update(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO, without=[0, 1]))
    book = openpyxl.load_workbook(path)
    mine = book.create_sheet("Mine", 0)
    mine["A1"], mine["B2"] = "=SUM(Summary!M2:M3)", "look at this"
    mine["B2"].font = Font(name="Courier New", i=True)
    mine.column_dimensions["B"].width = 33
    mine.freeze_panes = "B2"
    chart(mine), picture(mine)
    book["Summary"]["A2"].fill = PatternFill("solid", fgColor="00FF00")
    book.save(path)
    before = path.read_bytes()

    written = write(path, results(TWO) + results("base_lr: {value: .2}", name="more"))
    assert (written.settings, written.new) == (3, 1)
    assert written.earlier == tmp_path / "output.xlsx.bak"
    assert written.earlier.read_bytes() == before
    book = openpyxl.load_workbook(path)
    assert book.sheetnames == ["Mine", "Summary", "Runs", "Charts"]
    assert book.active.title == "Summary"
    mine = book["Mine"]
    assert (mine["A1"].value, mine["B2"].value) == ("=SUM(Summary!M2:M3)", "look at this")
    assert (mine["B2"].font.name, mine["B2"].font.i) == ("Courier New", True)
    assert (mine.column_dimensions["B"].width, mine.freeze_panes) == (33, "B2")
    assert (len(mine._charts), len(mine._images)) == (1, 1)
    rows = values(path)
    assert [row["Method"] for row in rows] == ["velocity", "random", "velocity"]
    assert [row["Seeds done"] for row in rows] == [3, 3, 1]
    assert [row["base_lr"] for row in rows] == [0.05, 0.05, 0.2]  # a column that was not needed before
    assert book["Summary"]["A2"].fill.fgColor.rgb == "00000000"  # the sheets of neq get the look of neq


def test_runs_of_earlier_calls_stay_and_count(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results("manual_seed: {values: [0, 1]}"))
    first = {row["Run (neq)"]: row for row in values(path, "Runs")}
    assert len(first) == 2
    written = write(path, results("manual_seed: {values: [2]}", name="more"))
    assert (written.settings, written.new) == (1, 0)
    (row,) = values(path)
    assert (row["Seeds done"], row["Seeds expected"]) == (3, 3)
    second = {row["Run (neq)"]: row for row in values(path, "Runs")}
    assert len(second) == 3
    for key, before in first.items():
        assert second[key].keys() == before.keys()
        assert {name: second[key][name] for name in before} == pytest.approx(before)


def test_a_run_that_the_book_holds_is_refreshed(tmp_path, results):
    path = tmp_path / "output.xlsx"
    runs = results("manual_seed: {values: [0, 1]}", without=[1])
    write(path, runs)
    assert [row["State"] for row in values(path, "Runs")] == ["done", "missing"]
    runs = results("manual_seed: {values: [0, 1]}")
    runs[0].summary["test_top1"] = 12.0
    write(path, runs)
    assert [row["State"] for row in values(path, "Runs")] == ["done", "done"]
    assert values(path, "Runs")[0][TEST] == 12
    assert values(path)[0]["Seeds done"] == 2


def test_environments_stand_in_runs_and_mixed_rows_are_marked(tmp_path, results):
    runs = results("manual_seed: {values: [0, 1]}")
    known = [Environment(threads=count, torch="2.9.0", commit="0123456789abcdef") for count in (1, 2)]
    runs = [
        replace(run, header=RecordHeader(stretches=(Stretch(one),)))
        for run, one in zip(runs, known, strict=True)
    ]
    path = tmp_path / "output.xlsx"
    assert write(path, runs[:1]).mixed == 0
    assert "Environments differ" not in values(path)[0]
    assert write(path, runs[1:]).mixed == 1
    (row,) = opened(path)
    assert row["Environments differ"].value == "threads: 1, 2"
    assert row["Environments differ"].font.color.rgb == "00B00020"
    stored = values(path, "Runs")
    assert [(row["Threads"], row["torch"], row["Commit of neq"]) for row in stored] == [
        ("1", "2.9.0", "0123456789ab"), ("2", "2.9.0", "0123456789ab"),
    ]  # fmt: skip


def test_a_further_sheet_takes_groups_and_is_written_anew(tmp_path, results, monkeypatch):
    rows = [{"Net": "mbv2", "Ours (%)": 90.5, "Seeds": 3}, {"Net": "=cmd", "Theirs (%)": 91.0}]
    given = []
    further = lambda groups: given.append(groups) or DataFrame(rows)  # noqa: E731
    monkeypatch.setitem(book_module.FURTHER, "Published", further)
    path = tmp_path / "output.xlsx"
    write(path, results(TWO))
    assert [len(groups) for groups in given] == [2]
    assert values(path, "Published")[1] == {
        "Net": "=cmd", "Ours (%)": None, "Seeds": None, "Theirs (%)": 91.0
    }  # fmt: skip
    del rows[1]
    write(path, results(TWO))
    assert [row["Net"] for row in values(path, "Published")] == ["mbv2"]
    rows.clear()
    write(path, results(TWO))
    assert "Published" not in openpyxl.load_workbook(path).sheetnames
