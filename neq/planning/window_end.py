"""The end of a window: training stops after the first epoch that ends once its time is over."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from neq.experiment.run import Stopping
from neq.training import EpochReport, Stop

# A number of its own, so that a signal that stops the process is told apart.
_OURS = signal.SIGALRM


class WindowEnd:
    """A tracker, and the `stopping` of its run, that ends a window; everything is saved then.

    Args:
        seconds: that are left of the window.
        stopping: of the process.

    Attributes:
        first_epoch: that has taken a step; none until then.
    """

    def __init__(self, seconds: float, stopping: Stopping) -> None:
        self._end, self._stopping = time.monotonic() + seconds, stopping
        self._stop = Stop()
        self.first_epoch: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the window has ended the run."""
        return self._stop.number == _OURS

    @contextmanager
    def stopping(self) -> Iterator[Stop]:
        """As of `run_training`."""
        with self._stopping() as self._stop:
            yield self._stop

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Remembers the first epoch; a window does not end within one."""
        if self.first_epoch is None:
            self.first_epoch = epoch

    def epoch(self, report: EpochReport) -> None:
        """Asks the run to stop once the epoch is saved, if the time is over."""
        if time.monotonic() >= self._end and not self._stop.number:
            self._stop.number = _OURS

    def finish(self, summary: dict[str, Any]) -> None:
        """Does nothing."""
