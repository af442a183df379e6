"""Stopping a training at the end of a step, so that nothing of it is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")

# A launcher passes on a signal that the terminal has sent to the whole group already: that is one request.
_ONE_REQUEST = 0.5


class Stopped(Exception):
    """A training was asked to stop, and stands at the end of a step.

    Args:
        number: of the signal that asked.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """Whether a training is asked to stop.

    Attributes:
        number: of the signal that asked; 0: go on.
    """

    def __init__(self) -> None:
        self.number = 0

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, as long as nobody asks to stop.

        Raises:
            Stopped: somebody does.
        """
        for item in items:
            if self.number:
                raise Stopped(self.number)
            yield item


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, SIGINT and SIGTERM ask to stop; a second one does what it did before."""
    stop, asked = Stop(), 0.0
    former: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        if not stop.number:
            stop.number, asked = number, now
            if os.isatty(2):  # a print could fall into another one
                os.write(2, b"\nneq: stops after this step and saves; once more ends it at once\n")
        elif now - asked > _ONE_REQUEST:
            handler = former[number]
            if callable(handler):
                handler(number, frame)

    for number in former:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
