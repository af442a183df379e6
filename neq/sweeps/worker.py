"""A worker of a sweep: runs one cell after another in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from neq.experiment.experiment import Experiment, RunFailed, RunResult
from neq.runs import RunIsBusy, SweepCell
from neq.sweeps import history
from neq.sweeps.queue import CellQueue
from neq.sweeps.storage import HEARTBEAT, database_errors, open_storage, patiently
from neq.sweeps.sweep_file import Sweep
from neq.sweeps.trials import Claim
from neq.utils.errors import UserError, first_line
from neq.utils.exit_codes import Terminated

# Exit codes of a worker, beside those of every command.
GAVE_UP, DIED = 3, 4
BUSY_PAUSE = 5.0
# Seconds for which an ending worker retries an unreachable database; after that its heartbeat times out.
FAREWELL = 5.0


@dataclass(frozen=True)
class Task:
    """The work of one worker; it is pickled to the worker's process.

    Args:
        storage: as the user named it; None is the file beside the runs.
        runs: folder of all runs.
        name: of the sweep in the storage.
        sweep: whose cells the worker runs.
        experiment: what runs them.
        finished: called with the folder of every finished run; returns lines for the log.
        worker: its name, unique among all machines.
        log: the file that all its output goes to.
        threads: of torch; None is torch's own choice.
        max_failures: in a row, after which it stops.
        failures: in a row so far, shared with the workers that it replaces.
    """

    storage: str | None
    runs: Path
    name: str
    sweep: Sweep
    experiment: Experiment
    finished: Callable[[Path], Iterable[str]] | None
    worker: str
    log: Path
    threads: int | None
    max_failures: int
    failures: Synchronized[int]


def work(task: Task) -> int:
    """Runs cells until none waits.

    Returns:
        The exit code: 0 when nothing waits, GAVE_UP after too many failures in a row, DIED after a fault that
        may have left this process unsound, 143 after SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if task.threads is not None and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(task.threads)
    failures = task.failures
    gc.freeze()  # modules stay: the collections after each cell need not look at them
    try:
        queue = CellQueue(open_storage(task.storage, task.runs), task.name, task.sweep)
        while claim := patiently(lambda: queue.claim(task.worker)):
            _log(f"cell {claim.cell}: {claim.values}")
            with _Heartbeat(claim):
                error = _run_cell(task, queue.metric, claim)
            failures.value = 0 if error is None else failures.value + 1
            if failures.value >= task.max_failures:
                return GAVE_UP
            if error is not None and not isinstance(error, UserError | RunFailed):
                return DIED
    except (KeyboardInterrupt, Terminated):
        return 143
    except UserError as error:  # of the database, not of a cell
        _log(str(error))
        failures.value += 1
        return GAVE_UP if failures.value >= task.max_failures else DIED
    return 0


def _run_cell(task: Task, metric: str, claim: Claim) -> Exception | None:
    """Runs one cell and settles its claim; returns the error that it failed with."""
    start = time.monotonic()
    try:
        result = _run(task, metric, claim)
        patiently(lambda: claim.note(history.FOLDER, os.fspath(result.folder)))
        patiently(lambda: claim.note(history.SECONDS, time.monotonic() - start))
    except (KeyboardInterrupt, Terminated):
        with contextlib.suppress(UserError, *database_errors()):
            claim.give_back(FAREWELL)
        raise
    except Exception as error:
        if not isinstance(error, UserError | RunFailed):
            traceback.print_exc()
        line = first_line(error)
        _log(line)
        claim.failed(line)
        return error
    finally:
        gc.collect()
    claim.done(result.metrics.get(metric), result.stopped)
    return None


def _run(task: Task, metric: str, claim: Claim) -> RunResult:
    """Runs the cell's configuration; waits while another process has the same run."""

    def report(done: int, epochs: int, metrics: Mapping[str, float]) -> bool:
        if done == 0:
            patiently(lambda: claim.note(history.EPOCHS, epochs))
            return False
        value = metrics.get(metric)
        _log(f"epoch {done} of {epochs}: {metric} {value}")
        with contextlib.suppress(Exception):  # an unreachable database costs this figure and nothing else
            return claim.report(done, value)
        return False

    config, _ = task.experiment.resolve(claim.values)
    cell = SweepCell(task.name, claim.cell)
    while True:
        try:
            result = task.experiment.run(config, task.runs, report, _log, cell)
            break
        except RunIsBusy:  # a worker that was taken for dead has it, or a cell that names the same run
            time.sleep(BUSY_PAUSE)
    if result.memory:
        patiently(lambda: claim.note(history.MEMORY, dict(result.memory)))
    if task.finished is not None and not result.stopped:
        for line in task.finished(result.folder):
            _log(line)
    return result


class _Heartbeat:
    """Sends heartbeats while the worker has a cell; ends the worker when its parent has died."""

    def __init__(self, claim: Claim) -> None:
        self._claim, self._end = claim, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        parent, last = multiprocessing.parent_process(), time.monotonic()
        while not self._end.wait(1.0):
            if parent is not None and not parent.is_alive():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.monotonic() - last >= HEARTBEAT:
                last = time.monotonic()
                with contextlib.suppress(Exception):  # the next one may arrive
                    self._claim.beat()


def _log(line: str) -> None:
    print(f"neq: {line}", file=sys.stdout, flush=True)


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what follows must complete
    raise Terminated
