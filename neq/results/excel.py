"""A table in a sheet of an Excel book: the look of its columns, written from rows."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from openpyxl.cell import Cell
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.page import PageMargins
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from neq.results.frame import Value

HEADER_FONT, HEADER_HEIGHT = Font(name="Calibri", size=11, bold=True), 48
HEADER_FILL, HEADER_LINE = PatternFill("solid", fgColor="E7ECF2"), Border(bottom=Side("thin", "6B7A8C"))
TEXT = Alignment("left", indent=1)
# Characters across a page (A4, landscape) at which print is legible, at about 70 %; columns on every page.
PAGE, REPEATED = 190, 5
LONGEST_TEXT, MOST_DIGITS = 32_767, 10**15 - 1  # Excel's cells hold no more
# Characters that XML cannot hold; names of folders may have them.
ILLEGAL = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        header: its name, with the unit.
        key: the column of the DataFrame that it shows.
        format: Excel's number format.
        scale: what one of its unit is in the DataFrame's.
        width: in characters; none: as wide as the header and its values need.
        hidden: whether it is there to be read back only.
        most: the largest width where `width` is none.
    """

    header: str
    key: str
    format: str = "General"
    scale: float = 1
    width: float | None = None
    hidden: bool = False
    most: float = 60


def write_table(
    sheet: Worksheet, columns: Sequence[Column], rows: Sequence[Mapping[str, Value]], fit_to_width: bool
) -> None:
    """Writes a table into an empty sheet: a frozen header with a filter, a row for each mapping.

    Args:
        columns: in their order.
        rows: DataFrame column -> value, in the DataFrame's units; a missing name is an empty cell.
        fit_to_width: whether it is printed as wide as the paper: on as many pages side by side as leave it
            legible, the first columns repeated on each.
    """
    for at, column in enumerate(columns, 1):
        values = [_scaled(row.get(column.key), column.scale) for row in rows]
        _write_header(sheet.cell(1, at), column, values)
        for row, value in enumerate(values, 2):
            if value is not None:
                put(sheet.cell(row, at), value, column.format)
    sheet.row_dimensions[1].height = HEADER_HEIGHT
    sheet.freeze_panes = "A2"
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{max(len(rows), 1) + 1}"
    sheet.page_setup.orientation, sheet.page_setup.paperSize = "landscape", sheet.PAPERSIZE_A4
    sheet.page_margins = PageMargins(left=0.4, right=0.4, top=0.5, bottom=0.5)
    sheet.oddFooter.right.text = "&A, &P / &N"
    sheet.print_title_rows = "1:1"
    if fit_to_width:
        _fit_to_width(sheet, columns)


def _fit_to_width(sheet: Worksheet, columns: Sequence[Column]) -> None:
    """Prints a table on pages of at most PAGE characters, its first columns on each of them."""
    widths = [sheet.column_dimensions[get_column_letter(at)].width for at in range(1, len(columns) + 1)]
    pages = 1
    if sum(widths) > PAGE:
        # Those that leave half of a page for others.
        repeated = max(at for at in range(REPEATED + 1) if sum(widths[:at]) <= PAGE / 2)
        if repeated:
            sheet.print_title_cols = f"A:{get_column_letter(repeated)}"
        first = sum(widths[:repeated])
        pages = math.ceil((sum(widths) - first) / (PAGE - first))
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = pages, 0


def contents(sheet: Worksheet) -> Iterator[tuple[int, int, Value]]:
    """Row, column and value of the cells that hold something, from 1; what is no number as text.

    A sheet's own iterators make every cell up to the last, up to 17 billion.
    """
    for cell in sheet._cells.values():
        if cell.value not in (None, ""):
            yield (
                cell.row,
                cell.column,
                cell.value if isinstance(cell.value, int | float) else str(cell.value),
            )


def put(cell: Cell, value: Value, number_format: str = "General") -> None:
    """Sets a cell: text stays text whatever it begins with, and what XML cannot hold is spelled out.

    A whole number of more digits than Excel keeps is text.
    """
    cell.number_format = number_format
    if isinstance(value, int) and abs(value) > MOST_DIGITS:
        value = str(value)
    if not isinstance(value, str):
        cell.value = value
        return
    text = ILLEGAL.sub(lambda found: repr(found[0])[1:-1], value)[:LONGEST_TEXT]
    cell.value = text
    cell.data_type = "s"  # "=..." would be a formula, "#N/A" an error
    cell.quotePrefix = text[:1] in ("=", "+", "-", "@", "'")
    cell.alignment = TEXT


def restyle(cell: Cell, **changed: object) -> None:
    """Changes a few properties of a cell's font."""
    font = copy.copy(cell.font)
    for name, value in changed.items():
        setattr(font, name, value)
    cell.font = font


def _write_header(cell: Cell, column: Column, values: Sequence[Value]) -> None:
    put(cell, column.header)
    cell.font, cell.fill, cell.border = HEADER_FONT, HEADER_FILL, HEADER_LINE
    is_number = column.format != "General" or any(isinstance(value, int | float) for value in values)
    cell.alignment = Alignment(
        "right" if is_number else "left", "top", wrap_text=True, indent=0 if is_number else 1
    )
    dimension = cell.parent.column_dimensions[cell.column_letter]
    dimension.width = column.width or _width(column, values)
    dimension.hidden = column.hidden


def _width(column: Column, values: Sequence[Value]) -> float:
    """Enough for the longest word of the header beside the filter's arrow, and for the values."""
    longest = max((len(word) for word in column.header.split()), default=0) + 3
    lengths = [len(value) if isinstance(value, str) else 10 for value in values if value is not None]
    return min(max([longest, 9, *(length + 3 for length in lengths)]), column.most)


def _scaled(value: Value, scale: float) -> Value:
    if scale == 1 or isinstance(value, str | bool | None):
        return value
    return value / scale
