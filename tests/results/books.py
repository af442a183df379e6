"""A book of made-up runs, written and read back."""

import openpyxl

from neq.results.book import write_book
from neq.results.frame import frame

TEST = "test/top1 at valid/best (%)"
TWO = "neuron_selection: {values: [velocity, random]}\n  manual_seed: {values: [0, 42, 100]}"
THREE = "neuron_selection: {values: [velocity, random, full]}\n  manual_seed: {values: [0, 42, 100]}"


def write(path, runs, checks=None, force=False):
    return write_book(path, frame(runs, checks), force)


def opened(path, title="Summary"):
    """The rows of a sheet, header -> cell."""
    header, *rows = openpyxl.load_workbook(path)[title].iter_rows()
    names = [cell.value for cell in header]
    return [dict(zip(names, row, strict=True)) for row in rows]


def values(path, title="Summary"):
    return [{name: cell.value for name, cell in row.items()} for row in opened(path, title)]
