"""The cells of a sweep as a queue that any number of workers share: each cell is done once, none is lost."""

from __future__ import annotations

import contextlib
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
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from neq.sweeps import history
from neq.sweeps.cells import grid, varying
from neq.sweeps.history import CellState, by_cell, cell_state
from neq.sweeps.parameters import Choice, Parameter
from neq.sweeps.search import draw, labels, pruner, sampler
from neq.sweeps.storage import PATIENCE, close_storage, patiently, quiet
from neq.sweeps.sweep_file import METRICS, Sweep

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
        self._storage, self._pruner = storage, pruner(sweep.early_terminate)
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
        with quiet():
            optuna.storages.fail_stale_trials(self._study())
        owed = [state for state in self.states() if state.owed or (failed and state.state == "failed")]
        for state in owed:
            attributes: dict[str, Any] = {history.CELL: state.cell}
            if state.state == "failed":
                attributes[history.RETRY] = True
            self._put_up(self._params(state), attributes)
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
                    return Claim(self, trial, self._values(trial))
            if not self.put_up() and not self._put_up_a_draw():
                return None

    def release(self, worker: str) -> None:
        """Gives back what a worker had that is known to be dead."""
        for trial in self.trials((TrialState.RUNNING,)):
            if trial.user_attrs.get(history.WORKER) == worker:
                self.settle(trial.number, TrialState.FAIL, {})

    def _put_up_a_draw(self) -> bool:
        """Puts up one more run of a random or bayes search, if it may have one."""
        if self.sweep.method == "grid":
            return False
        cap = self.sweep.run_cap
        if cap is not None and len(by_cell(self.trials())) >= cap:
            return False
        self._put_up({}, {})
        return True

    def _put_up(self, params: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        waiting = create_trial(
            state=TrialState.WAITING, system_attrs={"fixed_params": params}, user_attrs=dict(attributes)
        )
        self._storage.create_new_trial(self._study_id, template_trial=waiting)

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
        trial_id = self._id(number)
        # Before it is taken: whatever kills this process from here on leaves a heartbeat that grows old.
        self.beat(number)
        try:
            if not self._storage.set_trial_state_values(trial_id, state=TrialState.RUNNING):
                return None
            if self._is_surplus(number):
                self.settle(number, TrialState.FAIL, {history.SURPLUS: True})
                return None
            study = self._study()
            with quiet():
                study.sampler = sampler(self.sweep, number, self._seed)
            trial = Trial(study, trial_id)
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

    def settle(
        self, number: int, state: TrialState, attributes: Mapping[str, Any], value: float | None = None
    ) -> bool:
        """Ends a trial; false where it is ended already."""
        trial_id = self._id(number)
        try:
            for name, said in attributes.items():
                self._storage.set_trial_user_attr(trial_id, name, said)
            return self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])
        except UpdateFinishedTrialError:
            return False

    def beat(self, number: int) -> None:
        """Says that the worker of a trial is alive."""
        storage: Any = self._storage  # heartbeats stand in no public base class
        storage.record_heartbeat(self._id(number))

    def trials(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials that stand for cells, those made in vain too, in their order.

        Args:
            states: only trials in one of these.
        """
        return self._storage.get_all_trials(
            self._study_id, deepcopy=False, states=None if states is None else tuple(states)
        )

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    @property
    def _study_id(self) -> int:
        return self._storage.get_study_id_from_name(self.name)

    def _study(self) -> optuna.Study:
        return optuna.load_study(study_name=self.name, storage=self._storage, pruner=self._pruner)


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


def _goal(sweep: Sweep) -> tuple[str, bool]:
    """The metric that is gone by, and whether more of it is better."""
    if sweep.metric is None or sweep.metric.name not in METRICS:
        return METRIC, True
    return sweep.metric.name, sweep.metric.goal == "maximize"


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _plain(parameter: Parameter) -> object:
    kind = "choice" if isinstance(parameter, Choice) else "drawn"
    return {kind: asdict(parameter)}
