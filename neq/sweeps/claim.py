"""A cell in a worker's hands: what it tells of it, and the four ways in which it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from neq.sweeps import history
from neq.sweeps.storage import PATIENCE, patiently
from neq.sweeps.trials import Trials


class Claim:
    """A cell that a worker has taken, until it is ended in one of four ways.

    Args:
        trials: of the sweep.
        trial: that stands for the cell there.
        values: of the cell.
        telling: names of those that tell the cell from the others.
        maximize: more of the metric is better.
    """

    def __init__(
        self,
        trials: Trials,
        trial: Trial,
        values: Mapping[str, object],
        telling: Iterable[str],
        maximize: bool,
    ) -> None:
        self._trials, self._trial, self.values = trials, trial, values
        self._worst = float("-inf") if maximize else float("inf")
        self.note(history.VALUES, {name: values[name] for name in telling})
        self.cell = int(trial.user_attrs.get(history.CELL, trial.number))

    def note(self, name: str, value: object) -> None:
        """Writes an attribute beside the cell, unless it is no longer this worker's."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._trial.set_user_attr(name, value)

    def beat(self) -> None:
        """Says that its worker is alive."""
        self._trials.beat(self._trial.number)

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
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        return self._settle(state, {}, self._worst if value is None else value)

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
        return patiently(lambda: self._trials.settle(self._trial.number, state, attributes, value), patience)
