"""The sheet Charts: accuracy against budget as Excel's own charts, with the figures that they show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

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
from pandas import DataFrame

from neq.config.policies import POLICIES
from neq.results.columns import rows_of
from neq.results.excel import Column, write_table
from neq.results.frame import Value
from neq.results.grouping import policy_rank
from neq.results.series import Panel, panels

# The figures that the charts show stand in these columns; the charts stand to the right of them.
COLUMNS = (
    Column("Chart", "chart", width=44),
    Column("Series", "series", width=40),
    Column("Budget", "budget", "#,##0.##", width=13),
    Column("test/top1 at valid/best (%)", "test_top1", "0.00", width=13),
    Column("test/top1 std, n-1 (%)", "std", "0.00", width=13),
    Column("Seeds done", "test_top1_count", "0", width=8),
)
PLACES = {column.key: at for at, column in enumerate(COLUMNS, 1)}
# More than these in one chart cannot be told apart.
MOST_SERIES = 8
COLOURS = ("1F5FA8", "C8651B", "3B8A4A", "555555", "8A4FA0", "B0303A", "2F9BA8", "9A8420")
SYMBOLS = ("circle", "square", "triangle", "diamond", "x", "star", "plus", "dash")
DASHES = ("solid", "dash", "sysDot", "dashDot")
# Of a chart, in cm; the rows of the sheet that it covers; charts side by side.
WIDTH, HEIGHT, ROWS, ACROSS = 16.0, 9.5, 20, 2


def write_charts(sheet: Worksheet, table: DataFrame) -> None:
    """Draws accuracy against the budget, a chart for each data set, network and unit, with its figures.

    Args:
        sheet: an empty one.
        table: as of `groups`.
    """
    drawn = _drawn(panels(table, MOST_SERIES))
    policies = sorted({*POLICIES, *(str(name) for name in table["neuron_selection"])}, key=policy_rank)
    rows: list[dict[str, Value]] = []
    charts = []
    for title, panel in drawn:
        starts = []
        for _, points in panel.series:
            starts.append(len(rows) + 2)
            rows += _figures(title, panel, points)
        charts.append(_chart(sheet, title, panel, starts, policies))
    write_table(sheet, COLUMNS, rows, fit_to_width=True)
    for at, chart in enumerate(charts):
        column = get_column_letter(len(COLUMNS) + 2 + (at % ACROSS) * 10)
        sheet.add_chart(chart, f"{column}{2 + at // ACROSS * ROWS}")


def _drawn(every: Sequence[Panel]) -> list[tuple[str, Panel]]:
    """The panels to draw, with their titles."""
    units = Counter((panel.network, panel.dataset) for panel in every)
    found = []
    for panel in every:
        is_only = units[panel.network, panel.dataset] == 1
        title = f"{panel.network} on {panel.dataset}" + ("" if is_only else f", budget in {_unit(panel)}")
        # A baseline alone is no chart where the other budgets have another unit.
        if is_only or len(panel.points) > 1:
            found.append((title, panel))
    return found


def _unit(panel: Panel) -> str:
    return "MiB" if panel.unit == "bytes" else panel.unit


def _figures(title: str, panel: Panel, points: DataFrame) -> list[dict[str, Value]]:
    """The rows of a series, by the keys of COLUMNS."""
    shown = points.assign(
        chart=title,
        budget=points["budget"] / _size(panel),
        std=points["test_top1_std"].where(points["test_top1_count"] > 1),
    )
    return rows_of(shown[[column.key for column in COLUMNS]])


def _size(panel: Panel) -> int:
    return 2**20 if panel.unit == "bytes" else 1


def _chart(
    sheet: Worksheet, title: str, panel: Panel, starts: Sequence[int], policies: Sequence[str]
) -> ScatterChart:
    """A chart.

    Args:
        sheet: that holds its figures.
        title: of the chart.
        panel: what it shows.
        starts: the first row of each series.
        policies: of all charts, in their order.
    """
    chart = ScatterChart(scatterStyle="lineMarker", style=2)
    chart.title = _title(title)
    chart.width, chart.height = WIDTH, HEIGHT
    chart.x_axis.title = f"budget ({_unit(panel)})"
    chart.y_axis.title = "test top-1 (%)"
    chart.x_axis.number_format = "#,##0.##" if panel.unit == "bytes" else "#,##0"
    chart.y_axis.number_format = "0.0"
    for axis in (chart.x_axis, chart.y_axis):
        axis.delete = False
        axis.majorTickMark = "out"
        axis.number_format_linked = False
    chart.x_axis.majorGridlines = None
    chart.y_axis.majorGridlines.spPr = GraphicalProperties(ln=LineProperties(solidFill="DDDDDD"))
    _scale(chart, panel)
    chart.legend.position = "b"
    chart.plot_area.layout = Layout(
        manualLayout=ManualLayout("inner", "edge", "edge", x=0.12, y=0.13, w=0.83, h=0.58)
    )
    # A policy looks the same in every chart where each policy is one series.
    is_by_policy = (panel.points["series"] == panel.points["neuron_selection"]).all()
    for at, ((name, points), start) in enumerate(zip(panel.series, starts, strict=True)):
        look = policies.index(name) if is_by_policy else at
        chart.series.append(_series(sheet, points, look, start))
    return chart


def _title(text: str) -> Title:
    run = RegularTextRun(rPr=CharacterProperties(sz=1200, b=True), t=text)
    return Title(tx=Text(rich=RichText(p=[Paragraph(r=[run])])), overlay=False)


def _scale(chart: ScatterChart, panel: Panel) -> None:
    """Accuracies fill the height: Excel would begin at 0 where they are far from it."""
    top1, std = panel.points["test_top1"], panel.points["test_top1_std"]
    low, high = float((top1 - std).min()), float((top1 + std).max())
    step = next((step for step in (0.5, 1, 2, 5, 10) if high - low <= 6 * step), 20)
    chart.y_axis.scaling.min = max(0.0, -(-low // step) * step - step)
    chart.y_axis.scaling.max = min(100.0, (high // step + 1) * step)
    chart.y_axis.majorUnit = step
    largest = float(panel.points["budget"].max()) / _size(panel) or 1.0
    width = _tick(largest / 5)
    chart.x_axis.scaling.min, chart.x_axis.scaling.max = 0, (largest // width + 1) * width
    chart.x_axis.majorUnit = width


def _tick(least: float) -> float:
    """The first round number that is not smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _series(sheet: Worksheet, points: DataFrame, look: int, start: int) -> Series:
    last = start + len(points) - 1

    def cells(key: str, last: int = last) -> Reference:
        return Reference(sheet, min_col=PLACES[key], min_row=start, max_row=last)

    series = Series(cells("test_top1"), cells("budget"))
    series.tx = SeriesLabel(strRef=StrRef(f=str(cells("series", start))))
    colour = COLOURS[look % len(COLOURS)]
    line = LineProperties(solidFill=colour, w=19050, prstDash=DASHES[look % len(DASHES)])
    if not points["is_joined"].all():
        line = LineProperties(noFill=True)
    series.graphicalProperties = GraphicalProperties(ln=line)
    series.smooth = False
    series.marker = Marker(symbol=SYMBOLS[look % len(SYMBOLS)], size=7)
    series.marker.graphicalProperties = GraphicalProperties(
        solidFill=colour, ln=LineProperties(solidFill=colour)
    )
    if (points["test_top1_count"] > 1).any():
        std = NumDataSource(numRef=NumRef(f=str(cells("std"))))
        series.errBars = ErrorBars(errDir="y", errBarType="both", errValType="cust", plus=std, minus=std)
        series.errBars.spPr = GraphicalProperties(ln=LineProperties(solidFill=colour, w=9525))
    return series
