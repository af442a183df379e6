"""The Excel book of sweeps' runs, written anew from their DataFrame: Summary, Runs and Charts.

The book is derived data: its sheet Runs holds every run as JSON in a hidden column, from which it is read
back and joined with the new ones; then the sheets of neq are written again. Sheets that users added stay as
openpyxl keeps them. A property of the book fingerprints each sheet of neq, so that what somebody changed in
one is not lost silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from openpyxl import Workbook
from openpyxl.packaging.custom import StringProperty
from openpyxl.styles import PatternFill
from openpyxl.worksheet.worksheet import Worksheet
from pandas import DataFrame

from neq.results.book_file import BookFile
from neq.results.charts import write_charts
from neq.results.columns import (
    EVALUATION,
    METHOD,
    MIXED,
    STATE,
    STORED,
    TEST,
    further_columns,
    rows_of,
    runs_columns,
    summary_columns,
    summary_rows,
)
from neq.results.excel import contents, restyle, write_table
from neq.results.frame import CHECKED, Value, known_columns, of_records
from neq.results.grouping import groups
from neq.results.published import comparison
from neq.results.runs_of_sweep import IMAGES, key_of
from neq.results.verdicts import AS_RECORDED
from neq.utils.errors import UserError

SUMMARY, RUNS, CHARTS = "Summary", "Runs", "Charts"
# Sheets beside the three: title -> the table made from the DataFrame of `groups`, its columns named by their
# headers; without rows there is no sheet.
Sheet = Callable[[DataFrame], DataFrame]
FURTHER: dict[str, Sheet] = {"Published": comparison}
STATES = {"unfinished": "FFF2CC", "missing": "EDEDED", "damaged": "F8D7DA"}
WRONG = "B00020"
MARK = "neq: "  # of a property; the title of a sheet follows


def register_sheet(title: str, made: Sheet) -> None:
    """Adds a sheet to every book, as those of FURTHER."""
    FURTHER[title] = made


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        path: of the book.
        earlier: where the earlier book is kept; none: there was none.
        settings: how many rows of Summary are of the given runs.
        new: how many of them the book did not have.
        mixed: how many rows of Summary are over runs of several environments.
    """

    path: Path
    earlier: Path | None
    settings: int
    new: int
    mixed: int


def write_book(path: Path, runs: DataFrame, force: bool = False) -> Written:
    """Writes runs into a book, together with those that it holds already.

    A run that the book holds is replaced by its new row. The earlier book is kept as NAME.bak.

    Args:
        path: of the book, .xlsx.
        runs: as of `frame`.
        force: whether what cannot be kept of an earlier book may be dropped.

    Raises:
        UserError: the book is not of neq, holds what cannot be kept, or cannot be written; it is unchanged.
    """
    file = BookFile(path)
    book, stored = _load(file, force)
    given, before = set(runs["setting"]), set(stored["setting"])
    # A setting may be in the book from before its images were known.
    new = sum(before.isdisjoint((setting, _without_images(setting))) for setting in given)
    runs = _joined(stored, runs)
    table = groups(runs)
    _write_summary(_anew(book, SUMMARY), table)
    _write_runs(_anew(book, RUNS), runs, table)
    write_charts(_anew(book, CHARTS), table)
    for title, made in FURTHER.items():
        rows = made(table)
        if len(rows):
            write_table(_anew(book, title), further_columns(rows), rows_of(rows), fit_to_width=False)
        elif title in book.sheetnames:
            book.remove(book[title])
    for title in (SUMMARY, RUNS, CHARTS, *FURTHER):
        _mark(book, title)
    book.active = book.sheetnames.index(SUMMARY)
    for sheet in book.worksheets:
        sheet.sheet_view.tabSelected = sheet.title == SUMMARY
    earlier = file.save(book)
    return Written(path, earlier, len(given), new, int(table["environment"].notna().sum()))


def check_book(path: Path, force: bool = False) -> None:
    """Raises what `write_book` would, before work that takes long.

    Args:
        path, force: as of `write_book`.

    Raises:
        UserError: as of `write_book`.
    """
    _load(BookFile(path), force)


def _load(file: BookFile, force: bool) -> tuple[Workbook, DataFrame]:
    """The book to write into, and the runs that it holds."""
    loaded = file.load()
    if loaded is None:
        book = Workbook()
        book.remove(book.worksheets[0])
        book.properties.creator = "neq"
        return book, of_records([])
    book, lost = loaded
    marks = {one.name.removeprefix(MARK): one.value for one in book.custom_doc_props.props
             if one.name.startswith(MARK)}  # fmt: skip
    if not marks:
        raise UserError(f"{file.name} is not a book of this version of neq; give another name")
    lost += [
        f"changes in {title}"
        for title, mark in marks.items()
        if title in book.sheetnames and _fingerprint(book[title]) != mark
    ]
    if lost and not force:
        raise UserError(
            f"{file.name} holds what would be lost when it is written anew "
            f"({', '.join(lost)}); give another name, or --force (the book as it is stays as .bak)"
        )
    try:
        return book, _stored_runs(book)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"{file.name} holds runs that cannot be read; give another name") from None


def _stored_runs(book: Workbook) -> DataFrame:
    """The runs in the sheet Runs, as of `frame`."""
    if RUNS not in book.sheetnames:
        return of_records([])
    cells = list(contents(book[RUNS]))
    column = next(at for row, at, value in cells if row == 1 and str(value) == STORED)
    found = [json.loads(str(value)) for row, at, value in cells if row > 1 and at == column]
    return of_records(found).drop_duplicates("key")


def _mark(book: Workbook, title: str) -> None:
    """Notes a sheet of neq among the properties of the book."""
    properties, name = book.custom_doc_props, MARK + title
    if name in properties.names:
        del properties[name]
    if title in book.sheetnames:
        properties.append(StringProperty(name=name, value=_fingerprint(book[title])))


def _fingerprint(sheet: Worksheet) -> str:
    """A hash of what a sheet holds, the same in any order of rows and columns, however a program saves it."""
    held = [
        f"{value:.12g}" if isinstance(value, int | float) else str(value) for _, _, value in contents(sheet)
    ]
    held += [f"note: {cell.comment.text}" for cell in sheet._cells.values() if cell.comment is not None]
    held += [f"tables {len(sheet.tables)}, charts {len(sheet._charts)}, pictures {len(sheet._images)}"]
    return hashlib.sha256("\n".join(sorted(held)).encode()).hexdigest()


def _as_json(row: Mapping[str, Value]) -> str:
    """What of a run does not follow from its key; texts are cut to what one cell can hold of them all."""
    held = {name: row[name] for name in known_columns() if name in row}
    cut = {name: value[:2000] for name, value in held.items() if isinstance(value, str) and name != "key"}
    return json.dumps(held | cut, ensure_ascii=False)


def _joined(stored: DataFrame, runs: DataFrame) -> DataFrame:
    """The runs of a book and the new ones, each once.

    A run that was evaluated again earlier keeps its verdict while its test figure stays.
    """
    before = stored.set_index("key").reindex(runs["key"])
    is_kept = runs["evaluation"].isna() & (runs["test_top1"] == before["test_top1"].array)
    checked = {name: runs[name].mask(is_kept, before[name].array) for name in (*CHECKED, "evaluation")}
    new = {*runs["key"], *map(_without_images, runs["key"])}
    kept = stored[~stored["key"].isin(new)]
    parts = [part for part in (kept, runs.assign(**checked)) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else runs


def _without_images(key: str) -> str:
    return key_of(json.loads(key), IMAGES)


def _anew(book: Workbook, title: str) -> Worksheet:
    """An empty sheet in the place of the one of that title."""
    if title not in book.sheetnames:
        return book.create_sheet(title)
    at = book.sheetnames.index(title)
    book.remove(book[title])
    return book.create_sheet(title, at)


def _write_summary(sheet: Worksheet, table: DataFrame) -> None:
    columns = summary_columns(table)
    write_table(sheet, columns, summary_rows(table), fit_to_width=True)
    places = {column.header: at for at, column in enumerate(columns, 1)}
    for row, (is_best, environment) in enumerate(zip(table["is_best"], table["environment"], strict=True), 2):
        if is_best:
            restyle(sheet.cell(row, places[METHOD]), b=True)
            restyle(sheet.cell(row, places[TEST]), b=True)
        if not pd.isna(environment):
            restyle(sheet.cell(row, places[MIXED]), color=WRONG)


def _write_runs(sheet: Worksheet, runs: DataFrame, table: DataFrame) -> None:
    """The sheet Runs: in the order of Summary and of the seeds."""
    order = {setting: at for at, setting in enumerate(table.index)}
    runs = runs.assign(order=runs["setting"].map(order)).sort_values(["order", "seed"], kind="stable")
    columns, rows = runs_columns(runs), rows_of(runs)
    for row in rows:
        row["stored"] = _as_json(row)
    write_table(sheet, columns, rows, fit_to_width=False)
    places = {column.header: at for at, column in enumerate(columns, 1)}
    for at, row in enumerate(rows, 2):
        if row["state"] in STATES:
            fill = PatternFill("solid", fgColor=STATES[str(row["state"])])
            sheet.cell(at, places[STATE]).fill = fill
        if row.get("evaluation", AS_RECORDED) != AS_RECORDED:
            restyle(sheet.cell(at, places[EVALUATION]), color=WRONG)
