"""The Excel book of sweeps' runs, written anew from their DataFrame: Summary, Runs and Charts.

The book is derived data: the rows of Runs are read back, joined with the new ones, and the sheets of neq are
written again. Sheets that users added stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from openpyxl import Workbook
from openpyxl.styles import PatternFill
from openpyxl.worksheet.worksheet import Worksheet
from pandas import DataFrame

from neq.results import published
from neq.results.book_file import BookFile
from neq.results.book_reader import CHARTS, OPTIONAL, RUNS, SUMMARY, foreign_content, stored_runs
from neq.results.charts import write_charts
from neq.results.columns import (
    COUNT,
    EVALUATION,
    METHOD,
    MIXED,
    POINTS,
    STATE,
    TEST,
    rows_of,
    runs_columns,
    settings_of_runs,
    summary_columns,
    summary_rows,
)
from neq.results.excel import Column, restyle, write_table
from neq.results.frame import CHECKED, of_records
from neq.results.grouping import groups, varying_settings
from neq.results.runs_of_sweep import IMAGES, key_of
from neq.results.verdicts import AS_RECORDED
from neq.utils.errors import UserError, shown

STATES = {"unfinished": "FFF2CC", "missing": "EDEDED", "damaged": "F8D7DA"}
WRONG = "B00020"


@dataclass(frozen=True)
class FurtherSheet:
    """A sheet beside the three.

    Args:
        headers: all columns that it may have.
        table: makes it from the DataFrame of `groups`, its columns named by their headers; without rows there
            is no sheet.
    """

    headers: Sequence[str]
    table: Callable[[DataFrame], DataFrame]


# By title.
FURTHER = {"Published": FurtherSheet(published.HEADERS, published.comparison)}


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
        path: .xlsx, .xlsm, .xltx or .xltm.
        runs: as of `frame`.
        force: whether what cannot be kept of an earlier book may be dropped.

    Raises:
        UserError: the book is not of neq, holds what cannot be kept, or cannot be written; it is unchanged.
    """
    file = BookFile(path)
    book, stored = _load(file, force)
    given, known = set(runs["setting"]), _known(stored, runs)
    runs = _joined(stored, runs)
    table = groups(runs)
    _write_summary(_anew(book, SUMMARY), table)
    _write_runs(_anew(book, RUNS), runs, table)
    write_charts(_anew(book, CHARTS), table)
    for title, further in FURTHER.items():
        _write_further(book, title, further.table(table))
    book.active = book.sheetnames.index(SUMMARY)
    for sheet in book.worksheets:
        sheet.sheet_view.tabSelected = sheet.title == SUMMARY
    earlier = file.save(book)
    mixed = int(table["environment"].notna().sum())
    return Written(path, earlier, len(given), len(given - known), mixed)


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
    stored = stored_runs(book, file.name)
    lost += foreign_content(book, {title: further.headers for title, further in FURTHER.items()})
    if lost and not force:
        raise UserError(
            f"output {shown(file.name)} holds what would be lost when it is written anew "
            f"({', '.join(lost)}); give another name, or --force (the book as it is stays as .bak)"
        )
    return book, stored


def _joined(stored: DataFrame, runs: DataFrame) -> DataFrame:
    """The runs of a book and the new ones, each once."""
    new = set(runs["key"]) | {_without_images(key) for key in runs["key"]}
    runs = _with_verdicts(stored, runs)
    kept = stored[~stored["key"].isin(new)]
    return pd.concat([kept, runs], ignore_index=True) if len(kept) else runs


def _known(stored: DataFrame, runs: DataFrame) -> set[str]:
    """The settings of the new runs that the book has already, perhaps from before their images were known."""
    before = set(stored["setting"])
    return {setting for setting in runs["setting"] if {setting, _without_images(setting)} & before}


def _without_images(key: str) -> str:
    return key_of(json.loads(key), IMAGES)


def _with_verdicts(stored: DataFrame, runs: DataFrame) -> DataFrame:
    """The new runs; one that was evaluated again earlier keeps its verdict while its test figure stays."""
    before = stored[stored["evaluation"].notna()].set_index("key")
    runs = runs.copy()
    for at, key in runs["key"].items():
        if key in before.index and pd.isna(runs.at[at, "evaluation"]):
            row = before.loc[key]
            if row["test_top1"] == runs.at[at, "test_top1"]:
                for name in (*CHECKED, "evaluation"):
                    runs.at[at, name] = row[name]
    return runs


def _anew(book: Workbook, title: str) -> Worksheet:
    """An empty sheet in the place of the one of that title."""
    if title not in book.sheetnames:
        return book.create_sheet(title)
    at, earlier = book.sheetnames.index(title), book[title]
    book.remove(earlier)
    sheet = book.create_sheet(title, at)
    sheet.sheet_properties.codeName = earlier.sheet_properties.codeName  # macros know it by that
    return sheet


def _shown(table: DataFrame) -> set[str]:
    return {name for name in OPTIONAL if name in table and table[name].notna().any()}


def _write_summary(sheet: Worksheet, table: DataFrame) -> None:
    columns = summary_columns(varying_settings(table), _shown(table))
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
    columns = runs_columns(settings_of_runs(map(json.loads, runs["key"])), _shown(runs))
    rows = rows_of(runs)
    write_table(sheet, columns, rows, fit_to_width=False)
    places = {column.header: at for at, column in enumerate(columns, 1)}
    for at, row in enumerate(rows, 2):
        if row["state"] in STATES:
            fill = PatternFill("solid", fgColor=STATES[str(row["state"])])
            sheet.cell(at, places[STATE]).fill = fill
        if row.get("evaluation", AS_RECORDED) != AS_RECORDED:
            restyle(sheet.cell(at, places[EVALUATION]), color=WRONG)


def _write_further(book: Workbook, title: str, table: DataFrame) -> None:
    if table.empty:
        if title in book.sheetnames:
            book.remove(book[title])
        return
    rows = rows_of(table)
    columns = []
    for header in table.columns:
        numbers = [row[header] for row in rows if isinstance(row.get(header), int | float)]
        is_whole = all(isinstance(value, int) for value in numbers)
        columns.append(Column(header, header, COUNT if is_whole else POINTS))
    write_table(_anew(book, title), columns, rows, fit_to_width=False)
