"""A table in a sheet of a book: written afresh, or updated where it stands."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from openpyxl.cell import Cell, MergedCell
from openpyxl.cell.rich_text import CellRichText
from openpyxl.styles import Alignment, Border, Font, PatternFill, Side
from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from neq.results.tables import Value

# Where the header may have got to when rows were put above it.
HEADER_WITHIN = 20
HEADER_FONT, HEADER_HEIGHT = Font(name="Calibri", size=11, bold=True), 48
TEXT = Alignment("left", indent=1)
HEADER_FILL, HEADER_LINE = PatternFill("solid", fgColor="E7ECF2"), Border(bottom=Side("thin", "6B7A8C"))
LONGEST_TEXT = 32_767  # Excel's cells hold no more
# XML has no place for these, whatever wrote them into the name of a folder.
ILLEGAL = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        header: its name, with the unit.
        format: Excel's number format.
        width: in characters; none: as wide as the header and its numbers need.
        hidden: kept for updating.
        most: characters that it takes where `width` leaves it open.
    """

    header: str
    format: str = "General"
    width: float | None = None
    hidden: bool = False
    most: float = 60


@dataclass(frozen=True)
class Table:
    """What a sheet says.

    Args:
        columns: in their order; those that a sheet has already stay where they are.
        rows: by key, header -> value.
        key: the header of the column that rows are matched by; none: the table is written anew each time.
    """

    columns: Sequence[Column]
    rows: Mapping[str, Mapping[str, Value]]
    key: str | None = None


class Place:
    """Where a table stands in a sheet: the row of its header, and its columns by header."""

    def __init__(self, sheet: Worksheet, header_row: int, columns: dict[str, int]) -> None:
        self.sheet, self.header_row, self.columns = sheet, header_row, columns

    @property
    def last_row(self) -> int:
        """The last row that holds anything in the table's columns."""
        columns = set(self.columns.values())
        rows = (cell.row for cell in filled(self.sheet) if cell.column in columns)
        return max(self.header_row, max(rows, default=0))

    def only(self, headers: Iterable[str]) -> Place:
        """The same table without the columns that somebody added."""
        return Place(self.sheet, self.header_row, {name: self.columns[name] for name in headers})

    def clear(self) -> None:
        """Empties the rows of the table's columns; their formats stay."""
        for row in range(self.header_row + 1, self.last_row + 1):
            for at in self.columns.values():
                put(self.sheet.cell(row, at), None)

    def read(self, key: str) -> dict[str, tuple[int, dict[str, Value]]]:
        """Key -> the row that bears it, and its cells by header; of a key that stands twice the first."""
        found: dict[str, tuple[int, dict[str, Value]]] = {}
        for row in range(self.header_row + 1, self.last_row + 1):
            cells = {header: plain(self.sheet.cell(row, at).value) for header, at in self.columns.items()}
            if isinstance(named := cells.get(key), str):
                found.setdefault(named, (row, cells))
        return found


def filled(sheet: Worksheet) -> Iterator[Cell]:
    """The cells that hold something. A sheet's own ways to its cells make all up to the last: 17 billion."""
    return (cell for cell in sheet._cells.values() if cell.value is not None)


def find_table(sheet: Worksheet, headers: Sequence[str]) -> Place | None:
    """The table whose header row holds all of these headers, if the sheet has it."""
    for row in range(1, min(HEADER_WITHIN, sheet.max_row) + 1):
        columns: dict[str, int] = {}
        for at in range(1, sheet.max_column + 1):
            value = plain(sheet.cell(row, at).value)
            if isinstance(value, str):
                columns.setdefault(value, at)
        if all(header in columns for header in headers):
            return Place(sheet, row, columns)
    return None


def write_table(sheet: Worksheet, table: Table, place: Place | None) -> Place:
    """Writes a table: rows with a key that stands there are replaced, others appended.

    Cells that are not the table's, formats and widths of what stands there already, and rows that the table
    does not have stay as they are. A header that is missing is added to the right of the others.

    Args:
        place: where the table stands in the sheet; none: the sheet is new.
    """
    new = place is None
    if place is None:
        place = Place(sheet, 1, {})
    for column in table.columns:
        if column.header not in place.columns:
            _add_column(place, column, table)
    there = place.read(table.key) if table.key is not None else {}
    row = place.last_row
    for key, cells in table.rows.items():
        if key in there:
            at, fresh = there[key][0], False
        else:
            row += 1
            at, fresh = row, True
        for column in table.columns:
            if column.header in cells:
                cell = sheet.cell(at, place.columns[column.header])
                put(cell, cells[column.header], column.format if fresh else None)
    if new:
        sheet.freeze_panes = f"A{place.header_row + 1}"
        sheet.page_setup.orientation, sheet.page_setup.paperSize = "landscape", sheet.PAPERSIZE_A3
        sheet.print_title_rows = f"{place.header_row}:{place.header_row}"
    _filter(place)
    return place


def _add_column(place: Place, column: Column, table: Table) -> None:
    sheet, at = place.sheet, max(place.columns.values(), default=0) + 1
    while any(sheet.cell(row, at).value is not None for row in range(place.header_row, place.last_row + 1)):
        at += 1
    place.columns[column.header] = at
    cell = sheet.cell(place.header_row, at)
    put(cell, column.header, "General")
    cell.font, cell.fill, cell.border = HEADER_FONT, HEADER_FILL, HEADER_LINE
    below = (cells.get(column.header) for cells in table.rows.values())
    numbers = column.format != "General" or any(isinstance(value, int | float) for value in below)
    cell.alignment = Alignment("right" if numbers else "left", "top", wrap_text=True, indent=1 - numbers)
    height = sheet.row_dimensions[place.header_row]
    height.height = max(height.height or 0, HEADER_HEIGHT)
    dimension = sheet.column_dimensions[get_column_letter(at)]
    dimension.width = column.width or _width(column, table)
    dimension.hidden = column.hidden
    for row in range(place.header_row + 1, place.last_row + 1):
        sheet.cell(row, at).number_format = column.format


def _width(column: Column, table: Table) -> float:
    """Enough for the longest word of the header with a filter's arrow, and for what stands below it."""
    longest = max((len(word) for word in column.header.split()), default=0) + 3
    texts = [cells.get(column.header) for cells in table.rows.values()]
    below = [len(text) if isinstance(text, str) else 10 for text in texts if text is not None]
    return min(max([longest, 9, *(length + 3 for length in below)]), column.most)


def put(cell: Cell | MergedCell, value: Value, number_format: str | None = None) -> None:
    """Sets a cell: text stays text whatever it begins with, and what XML cannot hold is spelled out.

    Args:
        number_format: none: it stays.
    """
    if isinstance(cell, MergedCell):
        return  # a part of somebody's larger cell: there is no place for a value
    if isinstance(value, str):
        text = ILLEGAL.sub(lambda found: repr(found[0])[1:-1], value)[:LONGEST_TEXT]
        cell.value = text
        cell.data_type = "s"  # "=..." would be a formula, "#N/A" an error
        cell.quotePrefix = text[:1] in ("=", "+", "-", "@", "'")
    else:
        cell.value = value
        cell.quotePrefix = False
    if number_format is not None:
        cell.number_format = number_format
        if isinstance(value, str):
            cell.alignment = TEXT


def plain(value: object) -> Value:
    """The value of a cell: text without its formats; what is no value of ours (a date) as text."""
    if isinstance(value, CellRichText):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def restyle(cell: Cell | MergedCell, **changed: object) -> None:
    """Changes a few properties of a cell's font; the others stay."""
    if isinstance(cell, MergedCell):
        return
    if all(getattr(cell.font, name) == value for name, value in changed.items()):
        return
    font = copy.copy(cell.font)
    for name, value in changed.items():
        setattr(font, name, value)
    cell.font = font


def _filter(place: Place) -> None:
    """A filter over the whole table, or, where somebody made an Excel table of it, that table's rows."""
    sheet, first, last = place.sheet, place.header_row, max(place.last_row, place.header_row + 1)
    for table in sheet.tables.values():
        left, top, right, bottom = range_boundaries(table.ref)
        if top != first:
            continue
        if not table.totalsRowCount and bottom < last:
            table.ref = _reference(left, top, right, last)
            if table.autoFilter is not None:
                table.autoFilter.ref = table.ref
        return
    left, right = min(place.columns.values()), max(place.columns.values())
    sheet.auto_filter.ref = _reference(left, first, right, last)


def _reference(left: int, top: int, right: int, bottom: int) -> str:
    return f"{get_column_letter(left)}{top}:{get_column_letter(right)}{bottom}"


def fit_to_width(sheet: Worksheet) -> None:
    """Prints a sheet as wide as the paper."""
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    sheet.page_setup.fitToHeight = 0
