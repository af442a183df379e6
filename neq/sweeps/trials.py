"""The trials of one sweep in a storage: each does a cell, and is taken, heard of and ended once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from neq.sweeps.storage import lost, quiet


class Trials:
    """The trials of one sweep, which the storage knows.

    They are taken and ended through the storage itself: Optuna's `Study.ask` takes whichever waits, with no
    heartbeat before, and makes one where none waits; `Study.tell` writes no attributes, and of a stopped run
    no figure but the last reported.

    Args:
        storage: open.
        name: of the sweep there.
        pruner: says which runs stop early.
    """

    def __init__(self, storage: BaseStorage, name: str, pruner: BasePruner) -> None:
        self._storage, self._name, self._pruner = storage, name, pruner

    def listed(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        """The trials that stand for cells, those made in vain too, in their order.

        Args:
            states: only trials in one of these.
        """
        return self._study().get_trials(deepcopy=False, states=states)

    def put_up(self, params: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Adds a trial that waits.

        Args:
            params: that it draws, by parameter; others are drawn freely.
            attributes: that it has from the start.
        """
        self._study().enqueue_trial(dict(params), dict(attributes))

    def take(self, number: int) -> bool:
        """Makes a waiting trial run; false where another was faster.

        Raises:
            UpdateFinishedTrialError: it is ended already.
        """
        # Before it is taken: whatever kills this process from here on leaves a heartbeat that grows old.
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
        return Trial(study, self._id(number))  # `ask` alone gives them else

    def beat(self, number: int) -> None:
        """Says that the worker of a trial is alive."""
        storage: Any = self._storage  # heartbeats stand in no public base class
        storage.record_heartbeat(self._id(number))

    def fail_silent(self) -> None:
        """Ends the trials whose worker has not been heard of for too long."""
        with quiet():
            optuna.storages.fail_stale_trials(self._study())

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

    def _id(self, number: int) -> int:
        with _lost_if_unknown():
            study_id = self._storage.get_study_id_from_name(self._name)
            return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def _study(self) -> optuna.Study:
        with _lost_if_unknown():
            return optuna.load_study(study_name=self._name, storage=self._storage, pruner=self._pruner)


@contextmanager
def _lost_if_unknown() -> Iterator[None]:
    """Says that the database was taken away where it no longer knows the sweep: a new one is in its place."""
    try:
        yield
    except KeyError:
        raise lost("it no longer knows the sweep") from None
