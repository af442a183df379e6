"""What an Excel book of neq holds: its runs, and what stands in its sheets that neq did not write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet
from pandas import DataFrame

from neq.config.keys import KEYS
from neq.results.charts import COLUMNS as CHART_COLUMNS
from neq.results.charts import chart_titles
from neq.results.columns import KEY, METHOD, STATE, runs_columns, summary_columns
from neq.results.excel import filled, read_table
from neq.results.frame import Record, Value, of_records, record, settings_of_key
from neq.results.runs_of_sweep import IMAGES, SEED
from neq.runs.run_reader import number
from neq.utils.errors import UserError, shown

SUMMARY, RUNS, CHARTS = "Summary", "Runs", "Charts"
# Columns that a book has only where they have values.
OPTIONAL = ("environment", "evaluation")


def stored_runs(book: Workbook, name: str) -> DataFrame:
    """The runs in a book's sheet Runs, as of `frame`.

    Args:
        book: as it was read.
        name: of its file, for the error.

    Raises:
        UserError: neq did not write the book.
    """
    for title, headers in {SUMMARY: (KEY, METHOD), RUNS: (KEY, STATE)}.items():
        if title in book.sheetnames and not set(headers) <= set(_headers(book[title])):
            raise UserError(
                f"output {shown(name)}: its sheet {title} is not of neq (its first row has no "
                f"{' and '.join(headers)}); give another name"
            )
    if SUMMARY not in book.sheetnames:
        raise UserError(f"output {shown(name)} is not a book of neq (no sheet {SUMMARY}); give another name")
    rows = read_table(book[RUNS]) if RUNS in book.sheetnames else {}
    return of_records([found for row in rows.values() if (found := _record(row)) is not None])


def foreign_content(book: Workbook, further: Mapping[str, Sequence[str]]) -> list[str]:
    """What stands in the sheets of neq and would be lost when they are written anew, in a few words each.

    Args:
        book: as it was read.
        further: title -> headers of the sheets beside the three.
    """
    settings = (*KEYS, IMAGES)
    allowed = {
        SUMMARY: [*settings, *(column.header for column in summary_columns((), shown=OPTIONAL))],
        RUNS: [*settings, *(column.header for column in runs_columns((), shown=OPTIONAL))],
        CHARTS: [column.header for column in CHART_COLUMNS],
        **further,
    }
    found = []
    for sheet in book.worksheets:
        if sheet.title in allowed:
            found += [f"{what} in {sheet.title}" for what in _foreign(sheet, allowed[sheet.title])]
        ours = {str(cell.value) for cell in filled(sheet)} if sheet.title == CHARTS else set()
        if set(chart_titles(sheet)) - ours:
            found.append(f"a chart of yours in {sheet.title}")
    return found


def _foreign(sheet: Worksheet, headers: Sequence[str]) -> Iterator[str]:
    rows = read_table(sheet)
    names = dict.fromkeys([*_headers(sheet), *(name for row in rows.values() for name in row)])
    others = [shown(name) for name in names if name not in headers]
    if others:
        yield _first(others)
    if KEY in headers:
        is_known = _run_settings if sheet.title == RUNS else settings_of_key
        others = [f"row {at}" for at, row in rows.items() if is_known(row.get(KEY)) is None]
        if others:
            yield f"{_first(others)}, not of neq,"
    if any(cell.comment is not None for cell in sheet._cells.values()):
        yield "notes"
    if sheet.tables:
        yield "Excel tables"


def _first(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _headers(sheet: object) -> list[str]:
    if not isinstance(sheet, Worksheet):
        return []
    return [str(cell.value) for cell in filled(sheet) if cell.row == 1]


def _record(row: Mapping[str, Value]) -> Record | None:
    """The row of the DataFrame that a row of Runs shows; none where it is not one of neq's."""
    settings = _run_settings(row.get(KEY))
    if settings is None:
        return None
    known: dict[str, Any] = {"epochs": 0}
    for column in runs_columns((), shown=OPTIONAL):
        value = row.get(column.header)
        if column.key in (*settings, "seed", "key") or value is None:
            continue
        if column.scale != 1:
            figure = number(value)
            value = None if figure is None else figure * column.scale
        if column.key != "epochs" or (type(value) is int and abs(value) < 2**63):
            known[column.key] = value
    return record(str(row[KEY]), settings, **known)


def _run_settings(key: object) -> dict[str, Any] | None:
    """The settings that a run's key stands for; none where it is not one that neq wrote."""
    settings = settings_of_key(key)
    if settings is None or type(settings.get(SEED)) is not int or abs(settings[SEED]) >= 2**63:
        return None
    texts = ("dataset", "net_name", "neuron_selection", "initialization", "budget_unit")
    if not all(isinstance(settings[name], str) for name in texts):
        return None
    amounts = (settings["ratio"], settings["budget"])
    return settings if all(value is None or number(value) is not None for value in amounts) else None
