"""The cells of a sweep as a queue that any number of workers share: each is done once, and none is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from neq.sweeps import history
from neq.sweeps.cells import grid, varying
from neq.sweeps.history import CellState, by_cell, cell_state
from neq.sweeps.parameters import Choice, Parameter
from neq.sweeps.search import draw, labels, pruner, sampler
from neq.sweeps.storage import close_storage, quiet
from neq.sweeps.sweep_file import Sweep
from neq.sweeps.trials import Claim, Trials

# Characters of a sweep's own name in its name here: a folder's name takes 255 bytes, a character up to four.
LONGEST = 60
SETTLED = (TrialState.COMPLETE, TrialState.PRUNED)


def sweep_name(sweep: Sweep, stem: str, settings: Mapping[str, object]) -> str:
    """The name of a sweep in the storage and of its logs' folder; a file with other runs has another.

    Args:
        sweep: as read.
        stem: of the file's name, where the sweep has no name of its own.
        settings: of its experiment, that all runs share.
    """
    asked = {
        "method": sweep.method,
        "parameters": {name: _plain(parameter) for name, parameter in sweep.parameters.items()},
        "metric": sweep.metric and sweep.metric.model_dump(),
        "early_terminate": sweep.early_terminate and sweep.early_terminate.model_dump(),
        **settings,
    }
    text = json.dumps(asked, sort_keys=True, default=str)
    label = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in sweep.name or stem)
    return f"{label[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class CellQueue:
    """The cells of one sweep in a storage.

    Args:
        storage: open.
        name: of the sweep there.
        sweep: whose cells these are.

    Raises:
        UserError: its early_terminate is not supported.
    """

    def __init__(self, storage: BaseStorage, name: str, sweep: Sweep) -> None:
        self.name, self.sweep = name, sweep
        assert sweep.objective is not None, "read_sweep sets it"
        self.metric, self.maximize = sweep.objective.name, sweep.objective.goal == "maximize"
        self._storage = storage
        self._trials = Trials(storage, name, pruner(sweep.early_terminate))
        self._seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        self._grid = list(grid(sweep))[: sweep.run_cap] if sweep.method == "grid" else []

    def close(self) -> None:
        """Closes the storage."""
        close_storage(self._storage)

    @property
    def size(self) -> int | None:
        """The number of cells; None where runs are drawn without end."""
        return len(self._grid) if self.sweep.method == "grid" else self.sweep.run_cap

    def exists(self) -> bool:
        """Whether the storage contains the sweep."""
        return self.name in self.names()

    def names(self) -> list[str]:
        """The names of the sweeps in the storage."""
        return optuna.get_all_study_names(self._storage)

    def begin(self) -> None:
        """Creates the sweep in the storage if it is not there, and enqueues every cell that is owed."""
        try:
            direction = StudyDirection.MAXIMIZE if self.maximize else StudyDirection.MINIMIZE
            optuna.create_study(storage=self._storage, study_name=self.name, direction=direction)
        except DuplicatedStudyError:
            pass
        self.enqueue()

    def states(self) -> list[CellState]:
        """The state of every cell, in their order; draws to come are no cells yet."""
        found = by_cell(self.trials())
        cells = range(1, len(self._grid) + 1) if self._grid else sorted(found)
        return [cell_state(cell, found.get(cell, ())) for cell in cells]

    def enqueue(self, failed: bool = False) -> int:
        """Enqueues the cells that are owed: new ones, and those whose worker died.

        Args:
            failed: the failed ones too.

        Returns:
            The number of cells enqueued.
        """
        self._trials.fail_silent()
        owed = [state for state in self.states() if state.owed or (failed and state.state == "failed")]
        for state in owed:
            attributes: dict[str, Any] = {history.CELL: state.cell}
            if state.state == "failed":
                attributes[history.RETRY] = True
            self._trials.enqueue(self._params(state), attributes)
        return len(owed)

    def claim(self, worker: str) -> Claim | None:
        """Takes a cell for a worker; None where all are taken or done.

        Args:
            worker: its name, unique among all machines.
        """
        while True:
            for waiting in self.trials((TrialState.WAITING,)):
                trial = self._take(waiting.number, worker)
                if trial is not None:
                    shown = varying(self.sweep)
                    return Claim(self._trials, trial, self._values(trial), shown, self.maximize)
            if not self.enqueue() and not self._enqueue_draw():
                return None

    def trials(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials of cells, redundant ones too, in their order.

        Args:
            states: only trials in one of these.
        """
        return self._trials.listed(states)

    def silence(self) -> dict[int, float]:
        """Seconds since the last heartbeat of each trial that runs, by number."""
        return self._trials.silence()

    def release(self, worker: str) -> None:
        """Gives back the cells of a worker that is known to be dead."""
        for trial in self.trials((TrialState.RUNNING,)):
            if trial.user_attrs.get(history.WORKER) == worker:
                self._trials.settle(trial.number, TrialState.FAIL, {})

    def _enqueue_draw(self) -> bool:
        """Enqueues one more run of a random or bayes search; False where it may have none."""
        if self.sweep.method == "grid":
            return False
        cap = self.sweep.run_cap
        if cap is not None and len(by_cell(self.trials())) >= cap:
            return False
        self._trials.enqueue({}, {})
        return True

    def _params(self, state: CellState) -> Mapping[str, Any]:
        """The values of the trial that continues a cell: shown in the storage, and drawn again."""
        if self._grid:
            return self._labelled(state.cell)
        return state.trial.params if state.trial is not None else {}

    def _labelled(self, cell: int) -> dict[str, Any]:
        """The labels of a grid cell's varying values, by parameter."""
        return {name: found[_key(self._grid[cell - 1][name])] for name, found in self._labels.items()}

    @cached_property
    def _labels(self) -> dict[str, dict[str, Any]]:
        """For every varying parameter, the labels of all its values, whatever run_cap cuts off."""
        found, whole = {}, list(grid(self.sweep))
        for name in varying(self.sweep):
            values = {_key(row[name]): row[name] for row in whole}
            found[name] = dict(zip(values, labels(tuple(values.values())), strict=True))
        return found

    def _take(self, number: int, worker: str) -> Trial | None:
        """Takes a waiting trial for a worker; None where another was faster, or the trial is redundant."""
        try:
            if not self._trials.take(number):
                return None
            if self._is_redundant(number):
                self._trials.settle(number, TrialState.FAIL, {history.REDUNDANT: True})
                return None
            with quiet():
                drawn_by = sampler(self.sweep, number, self._seed)
            trial = self._trials.running(number, drawn_by)
            trial.set_user_attr(history.WORKER, worker)
        except UpdateFinishedTrialError:
            return None
        return trial

    def _is_redundant(self, number: int) -> bool:
        """Whether another trial covers the same cell, or run_cap is reached without this one."""
        trials = by_cell(self.trials())
        cell = next(key for key, found in trials.items() if any(trial.number == number for trial in found))
        for other in trials[cell]:
            is_before = other.number < number and not other.state.is_finished()
            if other.number != number and (is_before or other.state in SETTLED):
                return True
        runs_before = cell - 1 if self._grid else sorted(trials).index(cell)
        return self.size is not None and runs_before >= self.size

    def _values(self, trial: Trial) -> dict[str, object]:
        """The values of a trial's cell; those of a search are drawn here."""
        if not self._grid:
            return draw(trial, self.sweep.parameters)
        cell = int(trial.user_attrs[history.CELL])
        for name, found in self._labels.items():
            trial.suggest_categorical(name, list(found.values()))  # returns the enqueued label
        return self._grid[cell - 1]


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _plain(parameter: Parameter) -> object:
    kind = "choice" if isinstance(parameter, Choice) else "drawn"
    return {kind: asdict(parameter)}
