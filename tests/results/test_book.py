import io
import math
import zipfile
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
from neq.results.book import write_book
from neq.results.frame import frame
from neq.results.runs_of_sweep import run_key
from neq.results.verdicts import Check
from neq.runs import RecordHeader, Stretch
from neq.runs.environment import Environment
from neq.utils.errors import UserError
from tests.results.run_folders import configs, sweep_file, write_run

TEST = "test/top1 at valid/best (%)"
PUBLISHED = [
    "Model", "Scheme", "Budget", "Initialization", "Method", "valid/best (%)", "valid/best at epoch", TEST,
    "Average Stopping Epoch",
]  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """The runs of a sweep file with these parameters; those whose number is given have no folder."""

    def of(more, without=(), name="sweep"):
        file = sweep_file(tmp_path / f"{name}.yaml", more)
        for at, config in enumerate(configs(file)):
            if at not in without and not (tmp_path / "runs" / name / str(at)).exists():
                write_run(tmp_path / "runs", config, folder=f"{name}/{at}")
        return collect([file], tmp_path / "runs")

    return of


TWO = "neuron_selection: {values: [velocity, random]}\n  manual_seed: {values: [0, 42, 100]}"
THREE = "neuron_selection: {values: [velocity, random, full]}\n  manual_seed: {values: [0, 42, 100]}"


def write(path, runs, checks=None, force=False):
    return write_book(path, frame(runs, checks), force)


def opened(path, title="Summary"):
    """The rows of a sheet, header -> cell."""
    header, *rows = openpyxl.load_workbook(path)[title].iter_rows()
    names = [cell.value for cell in header]
    return [dict(zip(names, row, strict=True)) for row in rows]


def values(path, title="Summary"):
    return [{name: cell.value for name, cell in row.items()} for row in opened(path, title)]


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


def test_the_best_method_is_bold_and_no_other(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO))
    bold = [(row["Method"].font.b, row[TEST].font.b, row["Model"].font.b) for row in opened(path)]
    assert bold == [(True, True, False), (False, False, False)]


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


def test_without_any_run_the_book_says_so(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results(TWO, without=range(6)))
    assert [row["Seeds done"] for row in values(path)] == [0, 0]
    assert [row["State"] for row in values(path, "Runs")] == ["missing"] * 6
    assert openpyxl.load_workbook(path)["Charts"]._charts == []


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


def test_charts_are_excels_own_with_error_bars(tmp_path, results):
    more = "ratio: {values: [.1, .3]}\n  " + TWO
    path = tmp_path / "output.xlsx"
    write(path, results(more))
    sheet = openpyxl.load_workbook(path)["Charts"]
    (chart,) = sheet._charts
    assert [series.tx.strRef.f for series in chart.series] == ["'Charts'!$B$2", "'Charts'!$B$4"]
    velocity = chart.series[0]
    assert velocity.xVal.numRef.f == "'Charts'!$C$2:$C$3"
    assert velocity.yVal.numRef.f == "'Charts'!$D$2:$D$3"
    assert velocity.errBars.plus.numRef.f == velocity.errBars.minus.numRef.f == "'Charts'!$E$2:$E$3"
    rows = values(path, "Charts")
    assert [(row["Series"], row["Budget"]) for row in rows] == [
        ("velocity", 54318), ("velocity", 162953), ("random", 54318), ("random", 162953),
    ]  # fmt: skip
    assert {row["Chart"] for row in rows} == {"mcunet-in0 on digits"}
    assert (chart.x_axis.scaling.max, chart.x_axis.majorUnit) == (200_000, 50_000)
    assert chart.y_axis.scaling.min < 81 < 85.5 < chart.y_axis.scaling.max


def test_a_method_looks_the_same_in_every_chart(tmp_path, results):
    path = tmp_path / "output.xlsx"
    more = "net_name: {value: mcunet-in1}\n  neuron_selection: {values: [random, full]}"
    file = tmp_path / "other.yaml"
    file.write_text(sweep_file(file, more).read_text().replace("  net_name: {value: mcunet-in0}\n", ""))
    for config in configs(file):
        write_run(tmp_path / "runs", config)
    write(path, results(TWO) + collect([file], tmp_path / "runs"))
    looks = {
        (rows.tx.strRef.f, rows.marker.symbol, rows.graphicalProperties.line.solidFill.srgbClr)
        for chart in openpyxl.load_workbook(path)["Charts"]._charts
        for rows in chart.series
    }
    names = {f"'Charts'!$B${at}": row["Series"] for at, row in enumerate(values(path, "Charts"), 2)}
    by_name = {}
    for place, *look in looks:
        by_name.setdefault(names[place], set()).add(tuple(look))
    assert set(by_name) == {"velocity", "random", "full"}
    assert all(len(same) == 1 for same in by_name.values())
    assert len({next(iter(same)) for same in by_name.values()}) == 3


def test_an_update_redraws_the_charts_from_all_rows(tmp_path, results):
    path = tmp_path / "output.xlsx"
    write(path, results("ratio: {values: [.1]}\n  " + TWO))
    write(path, results("ratio: {values: [.3]}\n  " + TWO, name="more"))
    sheet = openpyxl.load_workbook(path)["Charts"]
    (chart,) = sheet._charts
    assert len(chart.series) == 2
    assert chart.series[0].yVal.numRef.f == "'Charts'!$D$2:$D$3"
    assert [sheet.cell(row, 3).value for row in range(2, 6)] == [54318, 162953, 54318, 162953]


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


def test_seeds_that_differ_beyond_15_digits_stay_two(tmp_path, results):
    seeds = [123_456_789_012_345_678, 123_456_789_012_345_679]
    path = tmp_path / "output.xlsx"
    for _ in range(2):  # written, and read and written again
        write(path, results(f"manual_seed: {{values: {seeds}}}"))
        assert [row["Seed"] for row in values(path, "Runs")] == [str(seed) for seed in seeds]
        assert values(path)[0]["Seeds done"] == 2


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


def test_a_search_with_many_settings_is_drawn_as_points(tmp_path, results):
    path = tmp_path / "output.xlsx"
    rates = [0.01 * at for at in range(1, 12)]
    write(path, results(f"base_lr: {{values: {rates}}}\n  ratio: {{values: [.1, .3]}}"))
    (chart,) = openpyxl.load_workbook(path)["Charts"]._charts
    (series,) = chart.series
    assert series.graphicalProperties.line.noFill
    assert {row["Series"] for row in values(path, "Charts")} == {"velocity, various settings"}


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
