"""`neq networks` and `neq datasets`: what there is by name."""

from __future__ import annotations

from rich.table import Table

from neq.cli.console import Console
from neq.config import datasets, networks
from neq.errors import UserError


def command(arguments: list[str]) -> int:
    """Prints the networks or the data sets; gives the exit code.

    Args:
        arguments: "networks" or "datasets" alone.
    """
    if len(arguments) > 1:
        raise UserError(f"neq {arguments[0]} takes no arguments, here {arguments[1]!r}")
    Console().print(_networks() if arguments[0] == "networks" else _datasets())
    return 0


def _networks() -> Table:
    table = Table("network", "input (px)", "conv weights", "start")
    for name, entry in networks().items():
        start = "pretrained" if entry.pretrained else "random"
        table.add_row(name, str(entry.input_size), f"{entry.conv_weights:,}", start)
    return table


def _datasets() -> Table:
    table = Table("data set", "classes", "augmentation")
    for name, entry in datasets().items():
        classes = "as in the folder" if entry.classes is None else str(entry.classes)
        table.add_row(name, classes, entry.augmentation)
    return table
