"""The Excel book of a sweep's results: Summary, Runs and Charts, new or updated where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openpyxl import Workbook
from openpyxl.styles import PatternFill
from openpyxl.worksheet.worksheet import Worksheet

from neq.config.leaves import LEAVES
from neq.errors import UserError, shown
from neq.results.book_file import BookFile
from neq.results.book_parts import CHARTS
from neq.results.charts import COLUMNS as CHART_COLUMNS
from neq.results.charts import write_charts
from neq.results.collect import IMAGES, Group, Run, group, key_of
from neq.results.columns import (
    CHECKED,
    COUNT,
    LAST,
    POINTS,
    RUNS_FIRST,
    RUNS_REST,
    SUMMARY_FIRST,
    SUMMARY_REST,
)
from neq.results.published import comparison_rows
from neq.results.sheet import (
    Column,
    Place,
    Table,
    filled,
    find_table,
    fit_to_width,
    put,
    restyle,
    write_table,
)
from neq.results.tables import (
    AGAIN,
    COSTS,
    DIFFERENCE,
    EVALUATION,
    IN_COLUMNS,
    KEY,
    METHOD,
    MODEL,
    STATE,
    TEST,
    Checks,
    Row,
    Value,
    add_ratios,
    best_rows,
    own_settings,
    run_rows,
    setting_value,
    settings_of_key,
    summary_rows,
    varying_settings,
)

SUMMARY, RUNS = "Summary", "Runs"
# Ten of the largest sweeps; every row up to the last one is gone through.
MOST_ROWS = 100_000
STATES = {"unfinished": "FFF2CC", "missing": "EDEDED", "damaged": "F8D7DA"}
WRONG = "B00020"

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
    summary = _sheet(book, SUMMARY)
    rows = _Merged(summary_rows(groups, checks), old.get(SUMMARY))
    add_ratios(rows.every)
    place = _write_summary(summary, rows, old.get(SUMMARY), checks)
    if SUMMARY not in old:
        fit_to_width(summary)
    _embolden(place, best_rows(rows.every))
    _write_runs(_sheet(book, RUNS), runs, old.get(RUNS), checks)
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


class _Merged:
    """New rows and those of a table that is there.

    Attributes:
        every: of both kinds; what a row there says is read from the sheet.
        new, replaced: how many of the new rows are there already, and are not.
    """

    def __init__(self, rows: Sequence[Row], place: Place | None) -> None:
        there = {} if place is None else place.read(KEY)
        if place is not None:
            _adopt(rows, there, place)
        keys = {row.key for row in rows}
        others = []
        for key, (_, cells) in there.items():
            settings = settings_of_key(key)
            if key not in keys and settings is not None:
                others.append(Row(key, settings, dict(cells)))
        self.fresh, self.every = list(rows), [*others, *rows]
        self.replaced = sum(row.key in there for row in rows)
        self.new = len(rows) - self.replaced
        self.there = {key: cells for key, (_, cells) in there.items()}


def _adopt(rows: Iterable[Row], there: dict[str, tuple[int, dict[str, Value]]], place: Place) -> None:
    """A row that was written before its images were known is the row of the run that has them now."""
    named = [(key, settings_of_key(key)) for key in there]
    without = {key_of(said): key for key, said in named if said is not None and IMAGES not in said}
    for row in rows:
        if row.key in there or IMAGES not in row.settings:
            continue
        bare = key_of(row.settings, IMAGES)
        former = without.pop(bare, None)
        if former is not None:
            there[row.key] = there.pop(former)
            put(place.sheet.cell(there[row.key][0], place.columns[KEY]), row.key)


def _write_summary(sheet: Worksheet, rows: _Merged, place: Place | None, checks: Checks | None) -> Place:
    settings = varying_settings(rows.every)
    if place is not None:
        settings += [name for name in _setting_columns(place) if name not in settings]
    columns = [*SUMMARY_FIRST, *_columns(settings), *SUMMARY_REST]
    if checks is not None or (place is not None and EVALUATION in place.columns):
        columns.append(CHECKED[-1])
    cells = {row.key: _cells(row, settings) for row in rows.fresh}
    for row in rows.every:
        if row.key not in cells:  # stands there already: only what depends on the other rows
            told = {name: setting_value(row.settings.get(name)) for name in settings}
            cells[row.key] = {**told, **{header: row.cells.get(header) for header in COSTS.values()}}
    _forget_checks(cells, rows, (EVALUATION,))
    return write_table(sheet, Table([*columns, *LAST], cells, KEY), place)


def _write_runs(sheet: Worksheet, runs: Sequence[Run], place: Place | None, checks: Checks | None) -> None:
    rows = _Merged(run_rows(runs, checks), place)
    settings = list(dict.fromkeys(name for run in runs for name in run.values if name not in IN_COLUMNS))
    settings.sort(key=lambda name: list(LEAVES).index(name) if name in LEAVES else len(LEAVES))
    if place is not None:
        settings += [name for name in _setting_columns(place) if name not in settings]
    columns = [*RUNS_FIRST, *_columns(settings), *RUNS_REST]
    if checks is not None or (place is not None and EVALUATION in place.columns):
        columns += CHECKED
    cells = {row.key: _cells(row, settings) for row in rows.fresh}
    for row in rows.every:
        if row.key not in cells:
            cells[row.key] = {name: setting_value(row.settings.get(name)) for name in settings}
    _forget_checks(cells, rows, (AGAIN, DIFFERENCE, EVALUATION))
    place = write_table(sheet, Table([*columns, *LAST], cells, KEY), place)
    _colour(place, rows.fresh)


def _setting_columns(place: Place) -> list[str]:
    """The settings that a table has a column of already."""
    return [name for name in place.columns if name in LEAVES or name == IMAGES]


def _columns(settings: Iterable[str]) -> list[Column]:
    return [Column(name, most=18) for name in settings]


def _cells(row: Row, settings: Iterable[str]) -> dict[str, Value]:
    told = {name: setting_value(row.settings.get(name)) for name in settings}
    return {**own_settings(row.settings, row.cells), **told, **row.cells, KEY: row.key}


def _forget_checks(cells: Mapping[str, dict[str, Value]], rows: _Merged, headers: Sequence[str]) -> None:
    """What was measured again of another figure than the row has now is no longer said."""
    for row in rows.fresh:
        before = rows.there.get(row.key)
        if before is not None and EVALUATION not in row.cells and before.get(TEST) != row.cells.get(TEST):
            cells[row.key] |= dict.fromkeys(headers)


def _embolden(place: Place, best: set[str]) -> None:
    """The best method of every group in bold, and no other."""
    for key, (row, _) in place.read(KEY).items():
        if settings_of_key(key) is not None:
            for header in (METHOD, TEST):
                restyle(place.sheet.cell(row, place.columns[header]), b=key in best)


def _colour(place: Place, rows: Iterable[Row]) -> None:
    """A colour for a run that is not done, red for a figure that differs."""
    there = place.read(KEY)
    for row in rows:
        at = there[row.key][0]
        state = place.sheet.cell(at, place.columns[STATE])
        wanted = STATES.get(str(row.cells[STATE]))
        if wanted is not None:
            state.fill = PatternFill("solid", fgColor=wanted)
        elif state.fill.fgColor.rgb in {f"00{colour}" for colour in STATES.values()}:
            state.fill = PatternFill()
        said = row.cells.get(EVALUATION)
        if isinstance(said, str):
            cell = place.sheet.cell(at, place.columns[EVALUATION])
            restyle(cell, color=None if said == "as recorded" else WRONG)


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
