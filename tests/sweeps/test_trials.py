"""A worker's claim on a trial, settled once."""

from contextlib import closing

import pytest
from optuna.trial import TrialState

from neq.sweeps import history
from neq.sweeps.queue import CellQueue
from neq.sweeps.storage import open_storage
from neq.utils.errors import UserError


@pytest.fixture
def queue(sweep_of, tmp_path):
    with closing(
        CellQueue(open_storage(None, tmp_path), "toy", sweep_of("target: {values: [1, 2]}"))
    ) as queue:
        queue.begin()
        yield queue


def test_a_claim_is_settled_once(queue):
    claim = queue.claim("one")
    assert claim.values == {"target": 1}
    claim.note(history.SECONDS, 3)
    assert claim.done(50.0)
    assert not claim.failed("too late")
    (trial,) = queue.trials((TrialState.COMPLETE,))
    assert (trial.value, trial.user_attrs[history.SECONDS]) == (50.0, 3)
    assert history.ERROR not in trial.user_attrs
    claim.note(history.SECONDS, 4)  # no error: another worker may have the cell
    assert not claim.report(1, 10.0)


def test_a_cell_without_its_metric_counts_as_the_worst(queue):
    assert queue.claim("one").done(None)
    (trial,) = queue.trials((TrialState.COMPLETE,))
    assert trial.value == float("-inf")


def test_a_trial_that_runs_is_not_taken_again(queue):
    claim = queue.claim("one")
    assert claim.cell == 1
    assert not queue._trials.take(0)


def test_a_sweep_that_the_storage_does_not_know_is_lost(queue):
    queue._trials._name = "other"
    with pytest.raises(UserError, match="it no longer contains the sweep"):
        queue.trials()
