"""The bar of one step of the preparation; without a terminal only its name is printed."""

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
def bar(
    console: Console, what: str, total: int | None, unit: Literal["bytes", "images"], start: int = 0
) -> Iterator[Callable[[int], None]]:
    """Shows how far a step is.

    Args:
        console: where to show it.
        what: the step, as "unpacking x.tgz".
        total: in all; none where it is not known.
        unit: what is counted.
        start: how much was done before.

    Yields:
        A function that takes how much has been done since its last call.
    """
    counted = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *counted, TimeRemainingColumn())
    if not console.is_terminal:
        console.print(what, highlight=False, markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what.replace("[", r"\["), total=total, completed=start)
        yield lambda done: progress.advance(task, done)
