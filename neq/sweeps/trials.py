"""The trials of one sweep in a storage, and a worker's claim on one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from neq.sweeps import history
from neq.sweeps.storage import PATIENCE, lost, patiently, quiet


class Trials:
    """The trials of one sweep, which the storage knows.

    They are taken and settled through the storage itself: Optuna's `Study.ask` takes whichever waits, with no
    heartbeat before, and creates one where none waits; `Study.tell` writes no attributes, and of a stopped
    run no value but the last reported.

    Args:
        storage: open.
        name: of the sweep there.
        pruner: decides which runs stop early.
    """

    def __init__(self, storage: BaseStorage, name: str, pruner: BasePruner) -> None:
        self._storage, self._name, self._pruner = storage, name, pruner

    def listed(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials of cells, redundant ones too, in their order.

        Args:
            states: only trials in one of these.
        """
        return self._study().get_trials(deepcopy=False, states=states)

    def enqueue(self, params: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Adds a waiting trial.

        Args:
            params: values that it draws, by parameter; others are drawn freely.
            attributes: that it has from the start.
        """
        self._study().enqueue_trial(dict(params), dict(attributes))

    def take(self, number: int) -> bool:
        """Makes a waiting trial run; False where another worker was faster.

        Raises:
            UpdateFinishedTrialError: it is settled already.
        """
        # Before it is taken: if this process is killed from here on, the heartbeat times out.
        self.beat(number)
        return self._storage.set_trial_state_values(self._id(number), state=TrialState.RUNNING)

    def running(self, number: int, sampler: BaseSampler) -> Trial:
        """A trial that runs, to draw its values and to report to.

        Args:
            number: of the trial.
            sampler: draws them.
        """
        study = self._study()
        study.sampler = sampler
        return Trial(study, self._id(number))  # otherwise only `ask` returns them

    def beat(self, number: int) -> None:
        """Records a heartbeat of a trial's worker."""
        storage: Any = self._storage  # heartbeats are in no public base class
        storage.record_heartbeat(self._id(number))

    def silence(self) -> dict[int, float]:
        """Seconds since the last heartbeat of each running trial, by number."""
        from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel
        from sqlalchemy import func, select
        from sqlalchemy.orm import Session

        storage: Any = self._storage  # Optuna has no public way to read heartbeats
        own = self._storage.get_study_id_from_name(self._name)
        running = TrialModel.study_id == own, TrialModel.state == TrialState.RUNNING
        with Session(storage._backend.engine) as session:
            now = session.execute(select(func.now())).scalar_one().replace(tzinfo=None)
            query = select(TrialModel.number, TrialHeartbeatModel.heartbeat).join(TrialHeartbeatModel.trial)
            found = session.execute(query.where(*running)).all()
        return {number: (now - heartbeat).total_seconds() for number, heartbeat in found}

    def fail_silent(self) -> None:
        """Fails the trials whose worker has sent no heartbeat for too long."""
        with quiet():
            optuna.storages.fail_stale_trials(self._study())

    def settle(
        self, number: int, state: TrialState, attributes: Mapping[str, Any], value: float | None = None
    ) -> bool:
        """Settles a trial; False where it is settled already."""
        trial_id = self._id(number)
        try:
            for name, attribute in attributes.items():
                self._storage.set_trial_user_attr(trial_id, name, attribute)
            return self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])
        except UpdateFinishedTrialError:
            return False

    def _id(self, number: int) -> int:
        with _lost_if_unknown():
            study_id = self._storage.get_study_id_from_name(self._name)
            return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def _study(self) -> optuna.Study:
        with _lost_if_unknown():
            return optuna.load_study(study_name=self._name, storage=self._storage, pruner=self._pruner)


@contextlib.contextmanager
def _lost_if_unknown() -> Iterator[None]:
    """Reports a lost database where the storage does not know the sweep: a new one has taken its place."""
    try:
        yield
    except KeyError:
        raise lost("it no longer contains the sweep") from None


class Claim:
    """A worker's claim on a cell, until it is settled in one of four ways.

    Args:
        trials: of the sweep.
        trial: of the cell.
        values: of the cell.
        shown: names of the values that distinguish the cell.
        maximize: whether more of the metric is better.
    """

    def __init__(
        self, trials: Trials, trial: Trial, values: Mapping[str, object], shown: Iterable[str], maximize: bool
    ) -> None:
        self._trials, self._trial, self.values = trials, trial, values
        self._worst = float("-inf") if maximize else float("inf")
        self.note(history.VALUES, {name: values[name] for name in shown})
        self.cell = history.cell_of(trial)

    def note(self, name: str, value: object) -> None:
        """Writes an attribute of the trial, unless the cell was given to another worker."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._trial.set_user_attr(name, value)

    def beat(self) -> None:
        """Records a heartbeat."""
        self._trials.beat(self._trial.number)

    def report(self, epoch: int, value: float | None) -> bool:
        """Reports the metric after an epoch, counted from 1; returns whether the run should stop there."""
        if value is None:
            return False
        try:
            self._trial.report(value, epoch)
        except UpdateFinishedTrialError:  # the cell was given to another worker
            return False
        return self._trial.should_prune()

    def done(self, value: float | None, stopped: bool = False) -> bool:
        """Settles the cell with its metric; returns whether the claim still held."""
        state = TrialState.PRUNED if stopped else TrialState.COMPLETE
        return self._settle(state, {}, self._worst if value is None else value)

    def failed(self, line: str) -> bool:
        """Settles the cell with an error; it is retried only on request."""
        return self._settle(TrialState.FAIL, {history.ERROR: line})

    def give_back(self, patience: float = PATIENCE) -> bool:
        """Leaves the cell to other workers; retries an unreachable database for so many seconds."""
        return self._settle(TrialState.FAIL, {history.GIVEN_BACK: True}, patience=patience)

    def _settle(
        self,
        state: TrialState,
        attributes: Mapping[str, Any],
        value: float | None = None,
        patience: float = PATIENCE,
    ) -> bool:
        return patiently(lambda: self._trials.settle(self._trial.number, state, attributes, value), patience)
