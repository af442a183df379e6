"""The sheet Charts: accuracy against budget as Excel's own charts, with the figures that they show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from openpyxl.chart import Reference, ScatterChart, Series
from openpyxl.chart.data_source import NumDataSource, NumRef, StrRef
from openpyxl.chart.error_bar import ErrorBars
from openpyxl.chart.layout import Layout, ManualLayout
from openpyxl.chart.marker import Marker
from openpyxl.chart.series import SeriesLabel
from openpyxl.chart.shapes import GraphicalProperties
from openpyxl.chart.text import RichText, Text
from openpyxl.chart.title import Title
from openpyxl.drawing.line import LineProperties
from openpyxl.drawing.text import CharacterProperties, Paragraph, RegularTextRun
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from neq.results.sheet import Column, Place, Table, fit_to_width, write_table
from neq.results.tables import (
    BUDGET,
    METHODS,
    MIB,
    SEEDS_DONE,
    TEST,
    TEST_STD,
    Row,
    setting_value,
    varying_settings,
)
from neq.runs.run_reader import number

CHART, SERIES = "Chart", "Series"
COLUMNS = (
    Column(CHART, width=44),
    Column(SERIES, width=32),
    Column(BUDGET, "#,##0.##", width=13),
    Column(TEST, "0.00", width=13),
    Column(TEST_STD, "0.00", width=13),
    Column(SEEDS_DONE, "0", width=8),
)
# More than these in one chart are not told apart any more.
MOST_SERIES = 8
COLOURS = ("1F5FA8", "C8651B", "3B8A4A", "555555", "8A4FA0", "B0303A", "2F9BA8", "9A8420")
SYMBOLS = ("circle", "square", "triangle", "diamond", "x", "star", "plus", "dash")
DASHES = ("solid", "dash", "sysDot", "dashDot")
# Of a chart, in cm; and how many rows and columns of the sheet that takes.
WIDTH, HEIGHT, ROWS, ACROSS = 16.0, 9.5, 20, 2


@dataclass(frozen=True)
class Point:
    """A point of a chart: budget in the chart's unit, mean in per cent, deviation over seeds."""

    budget: float
    top1: float
    std: float | None
    seeds: int | None


@dataclass(frozen=True)
class Drawing:
    """A chart: its title, its unit, and the points of every series in the order of their budgets.

    Args:
        lines: whether the points of a series belong together.
    """

    title: str
    unit: str
    series: dict[str, list[Point]]
    lines: bool


def drawings(rows: Sequence[Row]) -> list[Drawing]:
    """A chart for every data set, network and unit of the budget, a series for every method and setting."""
    places: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if number(row.cells.get(BUDGET)) is not None and number(row.cells.get(TEST)) is not None:
            said = [str(row.settings[name]) for name in ("net_name", "dataset", "budget_unit")]
            places.setdefault((said[0], said[1], said[2]), []).append(row)
    units: dict[tuple[str, str], int] = {}
    for net, data, _ in places:
        units[net, data] = units.get((net, data), 0) + 1
    found = []
    for (net, data, unit), same in places.items():
        called = "MiB" if unit == "bytes" else unit
        title = f"{net} on {data}" + (f", budget in {called}" if units[net, data] > 1 else "")
        # A baseline alone is a point of its own where the other budgets have another unit.
        if len(same) > 1 or units[net, data] == 1:
            found.append(_drawing(title, called, same))
    return found


def _drawing(title: str, unit: str, rows: Sequence[Row]) -> Drawing:
    names = [name for name in varying_settings(rows) if name not in ("ratio", "root")]
    told = {"initialization": "first", "norm_mode": "norms"}
    names = [name for name in told if len({row.settings[name] for row in _budgeted(rows)}) > 1] + names
    series: dict[str, list[Point]] = {}
    lines = True
    for row in rows:
        series.setdefault(_label(row, names, told), []).append(_point(row, unit))
    if len(series) > MOST_SERIES:
        series, lines = {}, False
        for row in rows:
            series.setdefault(f"{row.settings['neuron_selection']}, various settings", []).append(
                _point(row, unit)
            )
    for points in series.values():
        points.sort(key=lambda point: point.budget)
    return Drawing(title, unit, series, lines)


def _budgeted(rows: Iterable[Row]) -> list[Row]:
    """SU and full begin as they go on: what tells the first epochs of the others apart."""
    return [row for row in rows if row.settings["neuron_selection"] in ("velocity", "random")]


def _label(row: Row, names: Sequence[str], told: dict[str, str]) -> str:
    parts = [str(row.settings["neuron_selection"])]
    for name in names:
        if name == "initialization" and parts[0] not in ("velocity", "random"):
            continue
        value = setting_value(row.settings.get(name))
        parts.append(f"{told.get(name, name)} {'null' if value is None else value}")
    return ", ".join(parts)


def _point(row: Row, unit: str) -> Point:
    budget, top1 = number(row.cells.get(BUDGET)), number(row.cells.get(TEST))
    assert budget is not None
    assert top1 is not None
    seeds = number(row.cells.get(SEEDS_DONE))
    return Point(
        budget / MIB if unit == "MiB" else budget,
        top1,
        number(row.cells.get(TEST_STD)),
        None if seeds is None else int(seeds),
    )


def write_charts(sheet: Worksheet, rows: Sequence[Row], place: Place | None) -> None:
    """Draws the charts anew, and the figures that they show in the sheet's first columns.

    Cells outside the columns of these figures stay as they are.

    Args:
        rows: of the sheet Summary.
        place: where the figures stand; none: the sheet is new.
    """
    drawn = drawings(rows)
    if place is not None:
        place = place.only([column.header for column in COLUMNS])
        place.clear()
    cells: dict[str, dict[str, Any]] = {}
    spans: dict[tuple[int, str], tuple[int, int]] = {}
    for at, drawing in enumerate(drawn):
        for name, points in drawing.series.items():
            spans[at, name] = (len(cells), len(points))
            for point in points:
                values = (drawing.title, name, point.budget, point.top1, point.std, point.seeds)
                headers = (column.header for column in COLUMNS)
                cells[str(len(cells))] = dict(zip(headers, values, strict=True))
    new, place = place is None, write_table(sheet, Table(COLUMNS, cells), place)
    if new:
        fit_to_width(sheet)
    sheet._charts.clear()
    left = max(place.columns.values()) + 2
    for at, drawing in enumerate(drawn):
        chart = _chart(place, drawing, {name: spans[at, name] for name in drawing.series})
        column = get_column_letter(left + (at % ACROSS) * 10)
        sheet.add_chart(chart, f"{column}{2 + at // ACROSS * ROWS}")


def _chart(place: Place, drawing: Drawing, spans: dict[str, tuple[int, int]]) -> ScatterChart:
    chart = ScatterChart(scatterStyle="lineMarker", style=2)
    chart.title = _title(drawing.title)
    chart.width, chart.height = WIDTH, HEIGHT
    chart.x_axis.title = f"budget ({drawing.unit})"
    chart.y_axis.title = "test top-1 (%)"
    chart.x_axis.number_format = "#,##0.##" if drawing.unit == "MiB" else "#,##0"
    chart.y_axis.number_format = "0.0"
    for axis in (chart.x_axis, chart.y_axis):
        axis.delete = False
        axis.majorTickMark = "out"
        axis.number_format_linked = False
    chart.x_axis.majorGridlines = None
    chart.y_axis.majorGridlines.spPr = GraphicalProperties(ln=LineProperties(solidFill="DDDDDD"))
    _scale(chart, drawing)
    chart.legend.position = "b"
    chart.plot_area.layout = Layout(
        manualLayout=ManualLayout("inner", "edge", "edge", x=0.12, y=0.13, w=0.83, h=0.58)
    )
    plain = all(name in METHODS for name in spans)
    for at, (name, (start, count)) in enumerate(spans.items()):
        # A method looks the same in every chart where it is a line.
        look = METHODS.index(name) if plain else at
        chart.series.append(_series(place, drawing, look, name, start, count))
    return chart


def _title(text: str) -> Title:
    run = RegularTextRun(rPr=CharacterProperties(sz=1200, b=True), t=text)
    return Title(tx=Text(rich=RichText(p=[Paragraph(r=[run])])), overlay=False)


def _scale(chart: ScatterChart, drawing: Drawing) -> None:
    """Accuracies fill the height: Excel would begin at 0 where they are far from it."""
    points = [point for points in drawing.series.values() for point in points]
    low = min(point.top1 - (point.std or 0) for point in points)
    high = max(point.top1 + (point.std or 0) for point in points)
    step = next((step for step in (0.5, 1, 2, 5, 10) if high - low <= 6 * step), 20)
    chart.y_axis.scaling.min = max(0.0, -(-low // step) * step - step)
    chart.y_axis.scaling.max = min(100.0, (high // step + 1) * step)
    chart.y_axis.majorUnit = step
    most = max(point.budget for point in points) or 1.0
    wide = _tick(most / 5)
    chart.x_axis.scaling.min, chart.x_axis.scaling.max = 0, (most // wide + 1) * wide
    chart.x_axis.majorUnit = wide


def _tick(least: float) -> float:
    """The first round number that is not smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _series(place: Place, drawing: Drawing, look: int, name: str, start: int, count: int) -> Series:
    sheet, first = place.sheet, place.header_row + 1 + start

    def cells(header: str) -> Reference:
        column = place.columns[header]
        return Reference(sheet, min_col=column, min_row=first, max_row=first + count - 1)

    series = Series(cells(TEST), cells(BUDGET))
    label = Reference(sheet, min_col=place.columns[SERIES], min_row=first)
    series.tx = SeriesLabel(strRef=StrRef(f=str(label)))
    colour = COLOURS[look % len(COLOURS)]
    line = LineProperties(solidFill=colour, w=19050, prstDash=DASHES[look % len(DASHES)])
    if not drawing.lines:
        line = LineProperties(noFill=True)
    series.graphicalProperties = GraphicalProperties(ln=line)
    series.smooth = False
    series.marker = Marker(symbol=SYMBOLS[look % len(SYMBOLS)], size=7)
    series.marker.graphicalProperties = GraphicalProperties(
        solidFill=colour, ln=LineProperties(solidFill=colour)
    )
    if any(point.std is not None for point in drawing.series[name]):
        std = NumDataSource(numRef=NumRef(f=str(cells(TEST_STD))))
        series.errBars = ErrorBars(errDir="y", errBarType="both", errValType="cust", plus=std, minus=std)
        series.errBars.spPr = GraphicalProperties(ln=LineProperties(solidFill=colour, w=9525))
    return series
