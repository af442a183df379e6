"""The Excel book of a sweep's results, written anew from the DataFrame of runs: Summary, Runs and Charts.

The book is derived data: what stands in Runs already is read back, joined with the new runs, and all sheets
of neq are written again. Sheets that users added stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import json

import pandas as pd
from openpyxl import Workbook
from openpyxl.styles import PatternFill
from openpyxl.worksheet.worksheet import Worksheet
from pandas import DataFrame

from neq.config.leaves import LEAVES
from neq.errors import UserError, shown
from neq.results import published
from neq.results.book_file import BookFile
from neq.results.charts import COLUMNS as CHART_COLUMNS
from neq.results.charts import write_charts
from neq.results.columns import (
    COUNT,
    EVALUATION,
    KEY,
    METHOD,
    POINTS,
    STATE,
    TEST,
    rows_of,
    runs_columns,
    settings_of_runs,
    summary_columns,
    summary_rows,
)
from neq.results.excel import Column, read_table, restyle, write_table
from neq.results.frame import Value, of_records, record, settings_of_key
from neq.results.grouping import groups, varying_settings
from neq.results.reevaluation import AS_RECORDED
from neq.results.runs_of_sweep import IMAGES, SEED, key_of

SUMMARY, RUNS, CHARTS = "Summary", "Runs", "Charts"
STATES = {"unfinished": "FFF2CC", "missing": "EDEDED", "damaged": "F8D7DA"}
WRONG = "B00020"


@dataclass(frozen=True)
class FurtherSheet:
    """A sheet beside the three: its columns, and the function that makes its table from the groups.

    Args:
        headers: all columns that it can have.
        table: from the DataFrame of `groups`; without rows there is no sheet.
    """

    headers: Sequence[str]
    table: Callable[[DataFrame], DataFrame]


# By title.
FURTHER = {"Published": FurtherSheet(published.HEADERS, published.comparison)}


@dataclass(frozen=True)
class Written:
    """What was written: where, the earlier book, and how many rows of Summary are new or replaced."""

    path: Path
    earlier: Path | None
    new: int
    replaced: int


def write_book(path: Path, runs: DataFrame, force: bool = False) -> Written:
    """Writes runs, and those that the book holds already, into a book.

    Of a run that the book holds the new row counts. The earlier book is kept as NAME.bak.

    Args:
        path: .xlsx, .xlsm, .xltx or .xltm.
        runs: as of `frame`.
        force: whether what cannot be kept of an earlier book may be dropped.

    Raises:
        UserError: the book is not one of neq, or holds what cannot be kept, or cannot be written; it stays
            as it was.
    """
    file = BookFile(path)
    book, stored = _load(file, force)
    before = set() if stored is None else set(stored["setting"])
    if stored is not None:
        runs = _joined(stored, runs)
    table = groups(runs)
    # Runs whose images became known belong to another setting by its text, not by what it is.
    fresh = set(table.index) - before
    _write_summary(_anew(book, SUMMARY), table)
    _write_runs(_anew(book, RUNS), runs, table)
    write_charts(_anew(book, CHARTS), table)
    for title, further in FURTHER.items():
        _write_further(book, title, further.table(table))
    book.active = book.sheetnames.index(SUMMARY)
    for sheet in book.worksheets:
        sheet.sheet_view.tabSelected = sheet.title == SUMMARY
    return Written(path, file.save(book), len(fresh), 0)


def check_book(path: Path, force: bool = False) -> None:
    """Raises what `write_book` would raise, before anything that takes long.

    Args:
        path, force: as of `write_book`.

    Raises:
        UserError: as of `write_book`.
    """
    _load(BookFile(path), force)
