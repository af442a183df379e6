"""The sheet Charts."""

import openpyxl

from neq.results import collect
from tests.results.books import TWO, values, write
from tests.results.run_folders import configs, sweep_file, write_run


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


def test_a_search_with_many_settings_is_drawn_as_points(tmp_path, results):
    path = tmp_path / "output.xlsx"
    rates = [0.01 * at for at in range(1, 12)]
    write(path, results(f"base_lr: {{values: {rates}}}\n  ratio: {{values: [.1, .3]}}"))
    (chart,) = openpyxl.load_workbook(path)["Charts"]._charts
    (series,) = chart.series
    assert series.graphicalProperties.line.noFill
    assert {row["Series"] for row in values(path, "Charts")} == {"velocity, various settings"}
