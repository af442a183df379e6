import pytest
from optuna.trial import TrialState, create_trial

from neq.sweeps import history
from neq.sweeps.history import MOST_DEATHS, by_cell, cell_state

WAITING, RUNNING, FAIL = TrialState.WAITING, TrialState.RUNNING, TrialState.FAIL
COMPLETE, PRUNED = TrialState.COMPLETE, TrialState.PRUNED


def trials(*states):
    """Trials of one cell in order, from their states and attributes."""
    made = []
    for number, said in enumerate(states):
        state, attributes = said if isinstance(said, tuple) else (said, {})
        value = 1.0 if state == COMPLETE else None
        trial = create_trial(state=state, value=value, user_attrs={history.CELL: 5, **attributes})
        trial.number = number
        made.append(trial)
    return made


NOTHING: dict[str, object] = {}
DIED = (FAIL, NOTHING)
GIVEN_BACK = (FAIL, {history.GIVEN_BACK: True})
FAILED = (FAIL, {history.ERROR: "too large"})
AGAIN = (WAITING, {history.RETRY: True})


@pytest.mark.parametrize(
    ("states", "expected", "owed"),
    [
        ((), "waiting", True),
        ((WAITING,), "waiting", False),
        ((RUNNING,), "running", False),
        ((COMPLETE,), "done", False),
        ((PRUNED,), "stopped", False),
        ((FAILED,), "failed", False),
        ((DIED,), "waiting", True),
        ((DIED, WAITING), "waiting", False),
        ((DIED, COMPLETE), "done", False),
        ((DIED,) * (MOST_DEATHS - 1), "waiting", True),
        ((DIED,) * MOST_DEATHS, "failed", False),
        ((GIVEN_BACK,) * 2 * MOST_DEATHS, "waiting", True),
        ((FAILED, AGAIN), "waiting", False),
        ((FAILED, (FAIL, {history.RETRY: True, history.ERROR: "again"})), "failed", False),
        ((FAILED, (RUNNING, {history.RETRY: True})), "running", False),
        ((*(DIED,) * MOST_DEATHS, (FAIL, {history.RETRY: True})), "waiting", True),
        ((RUNNING, WAITING), "running", False),
        ((RUNNING, COMPLETE), "done", False),
    ],
)
def test_what_the_trials_of_a_cell_say(states, expected, owed):
    found = cell_state(5, trials(*states))
    assert (found.cell, found.state, found.owed) == (5, expected, owed)


def test_a_failure_is_told_with_its_line_or_as_deaths():
    assert cell_state(5, trials(FAILED)).reason == "too large"
    assert cell_state(5, trials(*(DIED,) * MOST_DEATHS)).reason == f"its worker died {MOST_DEATHS} times"


def test_trials_made_in_vain_belong_to_no_cell_and_draws_to_their_own():
    made = trials(COMPLETE, (FAIL, {history.REDUNDANT: True}), WAITING)
    del made[2].user_attrs[history.CELL]
    found = by_cell(reversed(made))
    assert {cell: [trial.number for trial in of] for cell, of in found.items()} == {5: [0], 3: [2]}


def test_the_draws_of_a_search_are_numbered_from_1():
    """As the cells of a grid are; a trial that continues a draw has its cell's number."""
    first, second = (create_trial(state=RUNNING), create_trial(state=FAIL))
    again = create_trial(state=WAITING, user_attrs={history.CELL: 2})
    for number, trial in enumerate((first, second, again)):
        trial.number = number
    assert by_cell([again, second, first]) == {1: [first], 2: [second, again]}
