"""The state of a sweep's cells, derived from the history of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, Trial, TrialState

State = Literal["waiting", "running", "done", "stopped", "failed"]
FINAL: tuple[State, ...] = ("done", "stopped", "failed")
# A cell whose worker dies this often counts as failed: it may be the cause.
MOST_DEATHS = 5

# Attributes of a trial.
CELL = "cell"  # the cell that it runs; a draw without it is the first trial of a cell of its own
WORKER = "worker"  # the name of the worker that has it
RETRY = "retry"  # trials before it no longer count
GIVEN_BACK = "given_back"  # its worker was asked to stop
REDUNDANT = "surplus"  # redundant: the cell exists already, or run_cap is reached
ERROR = "error"  # the line that it failed with
VALUES, SECONDS, EPOCHS, FOLDER, MEMORY = "values", "seconds", "epochs", "folder", "memory"


@dataclass(frozen=True)
class CellState:
    """The state of a cell.

    Args:
        cell: the number of a grid's cell, or of the trial that first drew it, from 1.
        state: "stopped" ended early, by the sweep's early_terminate.
        trial: the one that decides the state; None for a cell that was not enqueued yet.
        owed: whether it waits without a waiting trial.
        reason: of a failure, one line.
    """

    cell: int
    state: State
    trial: FrozenTrial | None = None
    owed: bool = False
    reason: str = ""


def cell_of(trial: FrozenTrial | Trial) -> int:
    """The cell of a trial, from 1."""
    return int(trial.user_attrs.get(CELL, trial.number + 1))


def by_cell(trials: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The trials of every cell, by number, without redundant ones."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if REDUNDANT not in trial.user_attrs:
            found.setdefault(cell_of(trial), []).append(trial)
    return found


def cell_state(cell: int, trials: Sequence[FrozenTrial]) -> CellState:
    """The state of a cell by its trials, in order.

    A trial that failed without an error lost its worker: its cell is owed again, up to MOST_DEATHS times.
    """
    starts = [at for at, trial in enumerate(trials) if RETRY in trial.user_attrs]
    trials = trials[starts[-1] :] if starts else trials
    for state, name in _DECIDING:
        for trial in trials:
            if trial.state == state:
                return CellState(cell, name, trial)
    failed = [trial for trial in trials if ERROR in trial.user_attrs]
    if failed:
        return CellState(cell, "failed", failed[-1], reason=str(failed[-1].user_attrs[ERROR]))
    died = [trial for trial in trials if GIVEN_BACK not in trial.user_attrs]
    if len(died) >= MOST_DEATHS:
        return CellState(cell, "failed", died[-1], reason=f"its worker died {len(died)} times")
    return CellState(cell, "waiting", trials[-1] if trials else None, owed=True)


_DECIDING: tuple[tuple[TrialState, State], ...] = (
    (TrialState.COMPLETE, "done"),
    (TrialState.PRUNED, "stopped"),
    (TrialState.RUNNING, "running"),
    (TrialState.WAITING, "waiting"),
)
