"""The cells of a sweep as a queue that any number of workers share: each cell is done once, none is lost."""

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

from neq.runs.metrics import epoch_keys
from neq.sweeps import history
from neq.sweeps.cells import grid, varying
from neq.sweeps.claim import Claim
from neq.sweeps.history import CellState, by_cell, cell_state
from neq.sweeps.parameters import Choice, Parameter
from neq.sweeps.search import draw, labels, pruner, sampler
from neq.sweeps.storage import close_storage, patiently, quiet
from neq.sweeps.sweep_file import Sweep
from neq.sweeps.trials import Trials

# What a search and the status go by where the file names no metric that runs log.
METRIC = "valid.val/best"
# Signs of a sweep's own name in its name here: a folder's name takes 255 bytes, a sign up to four.
LONGEST = 60
SETTLED = (TrialState.COMPLETE, TrialState.PRUNED)


def sweep_name(sweep: Sweep, stem: str, base: Mapping[str, object]) -> str:
    """The name of a sweep, of its logs' folder too: another one once the file asks for other runs.

    Args:
        sweep: as read.
        stem: of the file's name, where the sweep has no name of its own.
        base: the settings that its runs start from.
    """
    asked = {
        "method": sweep.method,
        "parameters": {name: _plain(parameter) for name, parameter in sweep.parameters.items()},
        "overrides": sweep.options.overrides,
        "base": base,
        "metric": sweep.metric and sweep.metric.model_dump(),
        "early_terminate": sweep.early_terminate and sweep.early_terminate.model_dump(),
    }
    text = json.dumps(asked, sort_keys=True, default=str)
    label = "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in sweep.name or stem)
    return f"{label[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class CellQueue:
    """The cells of one sweep in a storage.

    Args:
        storage: open.
        name: of the sweep there.
        sweep: what it asks for.

    Raises:
        UserError: its early_terminate cannot be had.
    """

    def __init__(self, storage: BaseStorage, name: str, sweep: Sweep) -> None:
        self.name, self.sweep = name, sweep
        self.metric, self.maximize = _goal(sweep)
        self._storage = storage
        self._trials = Trials(storage, name, pruner(sweep.early_terminate))
        self._seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        self._grid = list(grid(sweep))[: sweep.run_cap] if sweep.method == "grid" else []

    def close(self) -> None:
        """Closes the storage."""
        close_storage(self._storage)

    @property
    def size(self) -> int | None:
        """How many cells there are in all; none where runs are drawn without an end."""
        return len(self._grid) if self.sweep.method == "grid" else self.sweep.run_cap

    def exists(self) -> bool:
        """Whether the storage knows the sweep."""
        return self.name in self.names()

    def names(self) -> list[str]:
        """The sweeps that the storage knows."""
        return patiently(lambda: optuna.get_all_study_names(self._storage))

    def begin(self) -> None:
        """Makes the sweep in the storage if it is not there, and puts up every cell that is owed."""
        try:
            direction = StudyDirection.MAXIMIZE if self.maximize else StudyDirection.MINIMIZE
            optuna.create_study(storage=self._storage, study_name=self.name, direction=direction)
        except DuplicatedStudyError:
            pass
        self.put_up()

    def states(self) -> list[CellState]:
        """How far every cell is, in their order; draws to come are no cells yet."""
        found = by_cell(self.trials())
        cells = range(1, len(self._grid) + 1) if self._grid else sorted(found)
        return [cell_state(cell, found.get(cell, ())) for cell in cells]

    def put_up(self, failed: bool = False) -> int:
        """Puts up the cells that are owed: new ones, and those whose worker died; gives their number.

        Args:
            failed: the failed ones too.
        """
        self._trials.fail_silent()
        owed = [state for state in self.states() if state.owed or (failed and state.state == "failed")]
        for state in owed:
            attributes: dict[str, Any] = {history.CELL: state.cell}
            if state.state == "failed":
                attributes[history.RETRY] = True
            self._trials.put_up(self._params(state), attributes)
        return len(owed)

    def claim(self, worker: str) -> Claim | None:
        """A cell for a worker; none where all are taken or done.

        Args:
            worker: its name, not one of another.
        """
        while True:
            for waiting in self.trials((TrialState.WAITING,)):
                trial = self._take(waiting.number, worker)
                if trial is not None:
                    telling = varying(self.sweep)
                    return Claim(self._trials, trial, self._values(trial), telling, self.maximize)
            if not self.put_up() and not self._put_up_a_draw():
                return None

    def trials(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials that stand for cells, those made in vain too, in their order.

        Args:
            states: only trials in one of these.
        """
        return self._trials.listed(states)

    def release(self, worker: str) -> None:
        """Gives back what a worker had that is known to be dead."""
        for trial in self.trials((TrialState.RUNNING,)):
            if trial.user_attrs.get(history.WORKER) == worker:
                self._trials.settle(trial.number, TrialState.FAIL, {})

    def _put_up_a_draw(self) -> bool:
        """Puts up one more run of a random or bayes search, if it may have one."""
        if self.sweep.method == "grid":
            return False
        cap = self.sweep.run_cap
        if cap is not None and len(by_cell(self.trials())) >= cap:
            return False
        self._trials.put_up({}, {})
        return True

    def _params(self, state: CellState) -> Mapping[str, Any]:
        """What a trial that goes on with a cell shows in the storage, and draws again."""
        if self._grid:
            return self._labelled(state.cell)
        return state.trial.params if state.trial is not None else {}

    def _labelled(self, cell: int) -> dict[str, Any]:
        """What varies in a cell of a grid, by parameter: the label that stands for its value."""
        return {name: found[_key(self._grid[cell - 1][name])] for name, found in self._labels.items()}

    @cached_property
    def _labels(self) -> dict[str, dict[str, Any]]:
        """Of every parameter that varies: the labels of its values, whatever run_cap cuts off."""
        found, whole = {}, list(grid(self.sweep))
        for name in varying(self.sweep):
            values = {_key(row[name]): row[name] for row in whole}
            found[name] = dict(zip(values, labels(tuple(values.values())), strict=True))
        return found

    def _take(self, number: int, worker: str) -> Trial | None:
        """A waiting trial made a worker's own, unless another was faster or it is not wanted."""
        try:
            if not self._trials.take(number):
                return None
            if self._is_surplus(number):
                self._trials.settle(number, TrialState.FAIL, {history.SURPLUS: True})
                return None
            with quiet():
                drawn_by = sampler(self.sweep, number, self._seed)
            trial = self._trials.running(number, drawn_by)
            trial.set_user_attr(history.WORKER, worker)
        except UpdateFinishedTrialError:
            return None
        return trial

    def _is_surplus(self, number: int) -> bool:
        """Whether another trial does the same cell, or the sweep has its runs without this one."""
        trials = by_cell(self.trials())
        cell = next(key for key, found in trials.items() if any(trial.number == number for trial in found))
        for other in trials[cell]:
            is_before = other.number < number and not other.state.is_finished()
            if other.number != number and (is_before or other.state in SETTLED):
                return True
        runs_before = cell - 1 if self._grid else sorted(trials).index(cell)
        return self.size is not None and runs_before >= self.size

    def _values(self, trial: Trial) -> dict[str, object]:
        """The values of a trial's cell; a draw draws them."""
        if not self._grid:
            return draw(trial, self.sweep.parameters)
        cell = int(trial.user_attrs[history.CELL])
        for name, found in self._labels.items():
            trial.suggest_categorical(name, list(found.values()))  # gives what it was put up with
        return self._grid[cell - 1]


def _goal(sweep: Sweep) -> tuple[str, bool]:
    """The metric that is gone by, and whether more of it is better."""
    if sweep.metric is None or sweep.metric.name not in epoch_keys():
        return METRIC, True
    return sweep.metric.name, sweep.metric.goal == "maximize"


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _plain(parameter: Parameter) -> object:
    kind = "choice" if isinstance(parameter, Choice) else "drawn"
    return {kind: asdict(parameter)}
