"""The console of a command, and the format of numbers in tables; a failing output never ends a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich.console
from rich import box
from rich.table import Table


def short(number: int) -> str:
    """A count in three digits: `512`, `55.3k`, `9.36M`."""
    value, prefixes = float(number), ["", "k", "M", "G", "T"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g}{prefixes[0]}" if prefixes[0] else f"{number}"


def figures_table(name: str, figures: Sequence[str], title: str | None = None) -> Table:
    """A table of names and many figures that fits 80 columns: figures stay whole, names are cut.

    Args:
        name: heading of the first column.
        figures: headings of the others, broken at their spaces.
        title: above it.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column(name, no_wrap=True)
    for heading in figures:
        table.add_column(heading.replace(" ", "\n"), justify="right")
    return table


class Console(rich.console.Console):
    """A console that turns quiet when its reader is gone or its disk is full."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; turns quiet for good where that fails."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.quiet = True

    def lines(self, *lines: str, style: str | None = None) -> None:
        """Prints lines as they are: without markup, without highlighting."""
        for line in lines:
            self.print(line, style=style, highlight=False, markup=False)

    def note(self, line: str) -> None:
        """Prints a line of neq about what it does."""
        self.lines(f"neq: {line}", style="dim")

    def warn(self, line: str) -> None:
        """Prints a warning."""
        self.lines(f"neq: warning: {line}", style="yellow")

    def on_broken_pipe(self) -> None:
        """Turns quiet: the reader is gone (`| head`), but training continues."""
        self.quiet = True
