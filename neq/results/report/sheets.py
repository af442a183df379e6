"""The tables of a report as an Excel book."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
from openpyxl import Workbook
from pandas import DataFrame

from neq.results.columns import rows_of
from neq.results.excel import Column, write_table
from neq.results.report.contents import RunReport, table
from neq.results.report.speed import BATCHES


def book(runs: Sequence[RunReport]) -> bytes:
    """The content of an .xlsx file: Summary, Classes, Confused and, where it was measured, Speed."""
    made = Workbook()
    made.remove(made.worksheets[0])
    made.properties.creator = "neq"
    tables = {
        "Summary": table(runs),
        "Classes": pd.concat([run.quality.classes.assign(run=run.name) for run in runs]),
        "Confused": pd.concat([run.quality.confused(most=1000).assign(run=run.name) for run in runs]),
        "Speed": DataFrame([_speed(run, number) for run in runs for number in range(_variants(run))]),
    }
    for title, rows in tables.items():
        if len(rows):
            headers = sorted(rows.columns, key=lambda name: name != "run")  # of the run first
            columns = [Column(name, name, _format(rows[name])) for name in headers]
            write_table(made.create_sheet(title), columns, rows_of(rows), fit_to_width=True)
    content = io.BytesIO()
    made.save(content)
    return content.getvalue()


def _variants(run: RunReport) -> int:
    return 0 if run.speed is None else len(run.speed.variants)


def _speed(run: RunReport, at: int) -> dict[str, Any]:
    assert run.speed is not None
    each = run.speed.variants[at]
    row: dict[str, Any] = {"run": run.name, "variant": each.name, "MiB": each.file_bytes / 2**20}
    for number, size in enumerate(BATCHES):
        row |= {
            f"ms, batch {size}": each.milliseconds[number],
            f"least ms, batch {size}": each.least[number],
            f"images a second, batch {size}": each.fps[number],
            f"rounds, batch {size}": each.rounds[number],
        }
    accuracy = None if each.accuracy is None else 100 * each.accuracy
    chosen = "yes" if each.name == run.speed.int8 else ""
    return {**row, "as torch (%)": 100 * each.agreement, "accuracy (%)": accuracy, "chosen int8": chosen}


def _format(values: pd.Series) -> str:
    return "0.0000" if pd.api.types.is_float_dtype(values) else "General"
