"""The Excel book of a sequence: accuracies after each stage, and which plan ran when."""

from __future__ import annotations

from pathlib import Path

from openpyxl import Workbook

from neq.planning.sequence_record import SequenceRecord
from neq.results.excel import Column, write_table
from neq.utils.atomic_files import atomic_file

ACCURACY, PLANS = "Accuracy", "Plans"


def write_book(record: SequenceRecord, path: Path) -> None:
    """Writes the book anew.

    Args:
        record: of the sequence.
        path: of the book, in an existing folder.
    """
    book = Workbook()
    book.remove(book.worksheets[0])
    for title, (header, *rows) in ((ACCURACY, record.rows()), (PLANS, record.plan_rows())):
        if rows:
            names = [name or "note" for name in header]
            values = [dict(zip(names, map(_value, row), strict=True)) for row in rows]
            write_table(book.create_sheet(title), [Column(name, name) for name in names], values, True)
    with atomic_file(path) as file:
        book.save(file)


def _value(text: str) -> float | str | None:
    """A cell's value: a number where the text is one."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text or None
