"""A cell in a worker's hands: what it tells of it, and the four ways in which it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from neq.sweeps import history
from neq.sweeps.cells import varying
from neq.sweeps.storage import PATIENCE, patiently

if TYPE_CHECKING:
    from neq.sweeps.queue import CellQueue


class Claim:
    """A cell that a worker has taken, until it is ended in one of four ways.

    Args:
        queue: where it was taken.
        trial: that stands for it there.
        values: of the cell.
    """

    def __init__(self, queue: CellQueue, trial: Trial, values: Mapping[str, object]) -> None:
        self._queue, self._trial, self.values = queue, trial, values
        # Those that tell the cell from the others.
        self.note(history.VALUES, {name: values[name] for name in varying(queue.sweep)})
        self.cell = int(trial.user_attrs.get(history.CELL, trial.number))

    def note(self, name: str, value: object) -> None:
        """Writes an attribute beside the cell, unless it is no longer this worker's."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._trial.set_user_attr(name, value)

    def beat(self) -> None:
        """Says that its worker is alive."""
        self._queue.beat(self._trial.number)

    def report(self, epoch: int, value: float | None) -> bool:
        """Tells the metric after an epoch, from 1; gives whether the run should stop there."""
        if value is None:
            return False
        try:
            self._trial.report(value, epoch)
        except UpdateFinishedTrialError:  # the cell is another worker's by now
            return False
        return self._trial.should_prune()

    def done(self, value: float | None, stopped: bool = False) -> bool:
        """Ends the cell with its metric; gives whether it still was this worker's."""
        worst = float("-inf") if self._queue.maximize else float("inf")
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        return self._settle(state, {}, worst if value is None else value)

    def failed(self, line: str) -> bool:
        """Ends the cell for a reason of its own; it is not tried again without being asked."""
        return self._settle(TrialState.FAIL, {history.ERROR: line})

    def give_back(self, patience: float = PATIENCE) -> bool:
        """Leaves the cell to others; waits so many seconds for a database that is away."""
        return self._settle(TrialState.FAIL, {history.GIVEN_BACK: True}, patience=patience)

    def _settle(
        self,
        state: TrialState,
        attributes: Mapping[str, Any],
        value: float | None = None,
        patience: float = PATIENCE,
    ) -> bool:
        return patiently(lambda: self._queue.settle(self._trial.number, state, attributes, value), patience)
