"""Stopping a training at the end of a step, so that no step is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")

# Seconds. A launcher forwards a signal that the terminal has sent to the whole group: that is one request.
_ONE_REQUEST = 0.5


class Stopped(Exception):
    """A training was asked to stop, and has ended a step.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """Whether a training is asked to stop.

    Attributes:
        number: of the signal; 0: continue.
    """

    def __init__(self) -> None:
        self.number = 0

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields the items until a stop is requested.

        Raises:
            Stopped: it is.
        """
        for item in items:
            if self.number:
                raise Stopped(self.number)
            yield item


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside the context SIGINT and SIGTERM request a stop; a second signal has its former effect."""
    stop, asked = Stop(), 0.0
    former: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        now = time.monotonic()
        if not stop.number:
            stop.number, asked = number, now
            if os.isatty(2):  # a print could interrupt another one
                os.write(
                    2, b"\nneq: stopping after this step and saving; send the signal again to stop at once\n"
                )
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
