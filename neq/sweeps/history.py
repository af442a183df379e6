"""What the trials of a sweep say about its cells; nothing here changes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

State = Literal["waiting", "running", "done", "stopped", "failed"]
FINAL: tuple[State, ...] = ("done", "stopped", "failed")
# A cell whose worker dies this often counts as failed: it may be what kills them.
MOST_DEATHS = 5

# Attributes of a trial.
CELL = "cell"  # which cell it does; a draw without it is the first of its own
WORKER = "worker"  # who does it
RETRY = "retry"  # what was before it no longer counts
GIVEN_BACK = "given_back"  # its worker was told to stop
SURPLUS = "surplus"  # it was made in vain: the cell was there already, or run_cap reached
ERROR = "error"  # the line that it failed with
VALUES, SECONDS, EPOCHS, FOLDER, MEMORY = "values", "seconds", "epochs", "folder", "memory"


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Args:
        cell: its key: the number of a grid's cell, or of the trial that first drew it.
        state: "stopped" ended early, by the sweep's early_terminate.
        trial: the one that says so; none for a cell that nobody has put up yet.
        owed: it waits, and no trial waits for it.
        reason: of a failure, one line.
    """

    cell: int
    state: State
    trial: FrozenTrial | None = None
    owed: bool = False
    reason: str = ""


def cell_of(trial: FrozenTrial) -> int:
    """The cell that a trial does."""
    return int(trial.user_attrs.get(CELL, trial.number))


def by_cell(trials: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """The trials of every cell, by number; those made in vain are left out."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if SURPLUS not in trial.user_attrs:
            found.setdefault(cell_of(trial), []).append(trial)
    return found


def cell_state(cell: int, trials: Sequence[FrozenTrial]) -> CellState:
    """How far a cell is, from its trials in order.

    A trial that failed without saying why lost its worker: its cell is owed again, up to MOST_DEATHS times.
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
