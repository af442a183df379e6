"""The Excel book of a sweep's results: Summary, Runs and Charts, new or updated where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from neq.results.book_file import BookFile
from neq.results.book_parts import CHARTS
from neq.results.charts import COLUMNS as CHART_COLUMNS
from neq.results.charts import write_charts
from neq.results.collect import Group, Run, group
from neq.results.columns import COUNT, POINTS
from neq.results.published import comparison_rows
from neq.results.row_sheets import write_runs, write_summary
from neq.results.sheet import Column, Place, Table, filled, find_table, write_table
from neq.results.tables import KEY, METHOD, MODEL, STATE, Checks, Value
from neq.utils.errors import UserError, shown

SUMMARY, RUNS = "Summary", "Runs"
# Ten of the largest sweeps; every row up to the last one is gone through.
MOST_ROWS = 100_000

Rows = Sequence[Mapping[str, Value]]


def _published(groups: Sequence[Group]) -> Rows:
    """What was reached beside the published table, where settings, data set and budget match."""
    headers, rows = comparison_rows(groups)
    return [dict(zip(headers, row, strict=True)) for row in rows]


# Further sheets: a name, and the function that gives their rows (header -> value) from the groups; without
# rows there is no sheet. They are written anew each time.
FURTHER: dict[str, Callable[[Sequence[Group]], Rows]] = {"Published": _published}


@dataclass(frozen=True)
class Written:
    """What was written: where, the former book, and how many rows of Summary are new or replaced."""

    path: Path
    former: Path | None
    new: int
    replaced: int


def write_book(path: Path, runs: Sequence[Run], checks: Checks | None = None, force: bool = False) -> Written:
    """Writes the results of runs into a book, or into the one that is there.

    Of a book that is there, rows with the key of a new one are replaced and others appended; its other rows,
    sheets, columns and formats stay, and it is kept as NAME.bak. The charts are drawn anew from all rows.

    Args:
        path: .xlsx, .xlsm, .xltx or .xltm.
        runs: as of `collect`.
        checks: of best networks that were measured again, by `run_key`; none: none was.
        force: whether what openpyxl cannot keep may go.

    Raises:
        UserError: the book is not one of these, or cannot be written; it stays as it was.
    """
    file, groups = BookFile(path), group(runs)
    book = file.load(force)
    old = check_ours(book, file.name) if book is not None else {}
    if book is None:
        book = Workbook()
        book.remove(book.worksheets[0])
        book.properties.creator = "neq"
    rows = write_summary(_sheet(book, SUMMARY), groups, old.get(SUMMARY), checks)
    write_runs(_sheet(book, RUNS), runs, old.get(RUNS), checks)
    write_charts(_sheet(book, CHARTS), rows.every, old.get(CHARTS))
    for name, give in FURTHER.items():
        _write_further(book, name, give(groups), old.get(name))
    return Written(path, file.save(book), rows.new, rows.replaced)


def check_book(path: Path, force: bool = False) -> None:
    """Makes sure that `write_book` could write there, before what may take long.

    Args:
        path, force: as of `write_book`.

    Raises:
        UserError: as of `write_book`.
    """
    file = BookFile(path)
    book = file.load(force)
    if book is not None:
        check_ours(book, file.name)


def check_ours(book: Workbook, name: str) -> dict[str, Place]:
    """Where our tables stand in a book, by the names of their sheets.

    Raises:
        UserError: it is not a book of ours.
    """
    wanted = {
        SUMMARY: (KEY, MODEL, METHOD),
        RUNS: (KEY, STATE),
        CHARTS: [one.header for one in CHART_COLUMNS],
    }
    found: dict[str, Place] = {}
    for title, headers in {**wanted, **dict.fromkeys(FURTHER, ())}.items():
        if title not in book.sheetnames:
            continue
        sheet = book[title]
        place = find_table(sheet, headers) if isinstance(sheet, Worksheet) else None
        if place is None and not _is_empty(sheet):
            raise UserError(f"output {shown(name)}: its sheet {title} is not of neq; give another name")
        if place is not None and place.last_row > MOST_ROWS:
            raise UserError(
                f"output {shown(name)}: its sheet {title} holds something in row {place.last_row}, "
                "far below any row of neq; delete it there, or give another name"
            )
        if place is not None:
            found[title] = place
    if SUMMARY not in found:
        raise UserError(f"output {shown(name)} is not a book of neq (no sheet {SUMMARY}); give another name")
    return found


def _is_empty(sheet: object) -> bool:
    return isinstance(sheet, Worksheet) and not any(filled(sheet))


def _sheet(book: Workbook, title: str) -> Worksheet:
    sheet = book[title] if title in book.sheetnames else book.create_sheet(title)
    assert isinstance(sheet, Worksheet)
    return sheet


def _write_further(book: Workbook, title: str, rows: Rows, place: Place | None) -> None:
    """A sheet that is written anew each time: what stood in the columns of its rows goes."""
    if not rows:
        return
    sheet = _sheet(book, title)
    headers = list(dict.fromkeys(header for row in rows for header in row))
    if place is not None:
        place = place.only([header for header in headers if header in place.columns])
        place.clear()
    columns = [Column(header, _format(row.get(header) for row in rows)) for header in headers]
    write_table(sheet, Table(columns, {str(at): row for at, row in enumerate(rows)}), place)


def _format(values: Iterable[Value]) -> str:
    """A number format for a column: whole numbers, or two digits after the point."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return COUNT if all(isinstance(value, int) for value in numbers) else POINTS
