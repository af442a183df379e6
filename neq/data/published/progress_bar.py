"""Progress bar of one step; without a terminal only the step's name is printed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextlib.contextmanager
def progress_bar(
    console: Console, step: str, total: int | None, unit: Literal["bytes", "images"], start: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a step.

    Args:
        console: where it is shown.
        step: such as "unpacking x.tgz".
        total: units in all; None if unknown.
        unit: what is counted.
        start: units that were done before.

    Yields:
        A function that advances the bar by a number of units.
    """
    counts = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn())
    if not console.is_terminal:
        console.print(step, highlight=False, markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(step.replace("[", r"\["), total=total, completed=start)
        yield lambda units: progress.advance(task, units)
