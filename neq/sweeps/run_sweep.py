"""Running a sweep on this machine: workers are kept busy until every cell has ended, here or elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neq.sweeps import history
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue
from neq.sweeps.storage import patiently
from neq.sweeps.worker_pool import WorkerPool, cores, is_here, workers_that_fit

POLL = 0.5  # seconds


@dataclass(frozen=True)
class SweepUpdate:
    """How far a sweep is.

    Args:
        states: of all cells.
        ended: the cells among them that have ended since the update before.
        notes: lines for the user.
        workers: that run here.
        is_over: whether this is the last update.
    """

    states: Sequence[CellState]
    ended: Sequence[CellState]
    notes: Sequence[str]
    workers: int
    is_over: bool


def run_sweep(queue: CellQueue, pool: WorkerPool, workers: int | None) -> Iterator[SweepUpdate]:
    """Runs the cells of a sweep that has begun; yields an update twice a second.

    Args:
        queue: of the sweep.
        pool: of its workers; it is the caller's to stop.
        workers: at a time; None: one until its first run is done, then as many as cores and memory allow.
    """
    count, known = workers or 1, {state.cell for state in queue.states() if state.state in history.FINAL}
    while True:
        notes = pool.watch()
        patiently(queue.enqueue)
        states = patiently(queue.states)
        ended = [state for state in states if state.state in history.FINAL and state.cell not in known]
        known |= {state.cell for state in ended}
        if workers is None and (memories := _memories(states)):
            workers, why = workers_that_fit(memories)
            count = workers
            notes.append(f"{workers} worker{'' if workers == 1 else 's'} ({why})")
        waiting = _waiting(queue, states)
        is_over = False
        if waiting == 0 and not any(state.state == "running" for state in states):
            is_over = pool.alive == 0
        elif pool.gave_up >= count and pool.alive == 0:
            notes.append("neq: every worker has stopped; fix what fails, then run the command again")
            is_over = True
        if not is_over:
            pool.keep(count, waiting)
        yield SweepUpdate(states, ended, notes, pool.alive, is_over)
        if is_over:
            return
        time.sleep(POLL)


def _waiting(queue: CellQueue, states: Sequence[CellState]) -> int:
    """The number of cells that no worker has taken, with draws to come."""
    waiting = sum(state.state == "waiting" for state in states)
    if queue.sweep.method == "grid":
        return waiting
    to_come = cores() if queue.size is None else max(0, queue.size - len(states))
    return waiting + to_come


def _memories(states: Sequence[CellState]) -> list[dict[str, int]]:
    """The memory that workers of this machine have reported."""
    found = [state.trial.user_attrs for state in states if state.trial is not None]
    return [
        attributes[history.MEMORY]
        for attributes in found
        if history.MEMORY in attributes and is_here(attributes[history.WORKER])
    ]
