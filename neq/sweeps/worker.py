"""A worker of a sweep: trains one cell after another in a process that imports torch once."""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from neq.config import Options, Resolved, resolve
from neq.data import Data, open_data
from neq.experiment.run import Surroundings, run_training
from neq.runs import RunIsBusy, RunRecord, SweepCell, find_run, read_metrics
from neq.sweeps import history
from neq.sweeps.claim import Claim
from neq.sweeps.open_data import kept_open
from neq.sweeps.queue import CellQueue
from neq.sweeps.storage import HEARTBEAT, database_errors, open_storage, patiently
from neq.sweeps.task import DIED, GAVE_UP, Task
from neq.training import EpochReport, TrainingDiverged, forget_peak_memory, peak_memory, total_epochs
from neq.utils.device import pick_device
from neq.utils.errors import UserError, first_line
from neq.utils.exit_codes import Terminated
from neq.utils.malloc import give_back_at_once

BUSY_PAUSE = 5.0
# How long an ending worker waits for a database that is away; without it, its heartbeat grows old. Seconds.
FAREWELL = 5.0

Opened = Callable[..., Data]


class StoppedEarly(Exception):
    """The sweep's early_terminate ends the run."""


def work(task: Task) -> int:
    """Does cells until none waits; gives the exit code.

    Args:
        task: what a worker is told.

    Returns:
        0 when nothing waits, GAVE_UP after too many failures in a row, DIED after a fault that may have
        spoilt this process, 143 after SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if task.threads is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(task.threads)
    opened, failures = kept_open(open_data), task.failures
    gc.freeze()  # what was imported stays: the collections after each cell need not look at it
    try:
        queue = CellQueue(open_storage(task.storage, task.runs), task.name, task.sweep)
        while claim := patiently(lambda: queue.claim(task.worker)):
            print(f"neq: cell {claim.cell}: {claim.values}", flush=True)
            with _Pulse(claim):
                error = _do(task, queue, claim, opened)
            failures.value = 0 if error is None else failures.value + 1
            if failures.value >= task.max_failures:
                return GAVE_UP
            if error is not None and not isinstance(error, UserError | TrainingDiverged):
                return DIED
    except (KeyboardInterrupt, Terminated):
        return 143
    except UserError as error:  # of the database, not of a cell
        print(f"neq: {error}", file=sys.stderr, flush=True)
        failures.value += 1
        return GAVE_UP if failures.value >= task.max_failures else DIED
    return 0


def _do(task: Task, queue: CellQueue, claim: Claim, opened: Opened) -> Exception | None:
    """Does one cell; gives what it failed with."""
    start = time.monotonic()
    try:
        resolved = resolve(task.base, {**task.sweep.options.overrides, **claim.values})
        patiently(lambda: claim.note(history.EPOCHS, total_epochs(resolved.config.run_config)))
        while (stopped := _train(task, queue, claim, resolved, opened)) is None:
            time.sleep(BUSY_PAUSE)
        folder = find_run(resolved.config, task.runs).folder
        rows = read_metrics(folder)
        value = metric_of(rows[-1], queue.metric) if rows else None
        patiently(lambda: claim.note(history.FOLDER, os.fspath(folder)))
        patiently(lambda: claim.note(history.SECONDS, time.monotonic() - start))
    except (KeyboardInterrupt, Terminated):
        with contextlib.suppress(UserError, *database_errors()):
            claim.give_back(FAREWELL)
        raise
    except Exception as error:
        if not isinstance(error, UserError | TrainingDiverged):
            traceback.print_exc()
        line = first_line(error)
        print(f"neq: {line}", file=sys.stderr, flush=True)
        claim.failed(line)
        return error
    finally:
        gc.collect()
    claim.done(value, stopped)
    return None


def _train(task: Task, queue: CellQueue, claim: Claim, resolved: Resolved, opened: Opened) -> bool | None:
    """Trains the run unless it is done already; gives whether it was stopped early.

    None where another process has it: a worker that was taken for dead, or a cell that names the same run.
    """
    cell, found = SweepCell(queue.name, claim.cell), find_run(resolved.config, task.runs)
    if found.state == "done":
        try:
            RunRecord(found.folder).asked_by(cell)
        except RunIsBusy:
            return None
        return False
    if resolved.config.memory == "tight":
        give_back_at_once()
    forget_peak_memory(pick_device(resolved.config.device))  # that of the cells before
    resume = {"resume": found.state == "unfinished"}
    goes_on = replace(resolved, config=resolved.config.model_copy(update=resume))
    try:
        around = Surroundings(task.runs, opened, (_Reporter(claim, queue.metric),), cell)
        run_training(Options(), goes_on, around)
        stopped = False
    except StoppedEarly:
        stopped = True
    except RunIsBusy:
        return None
    patiently(lambda: claim.note(history.MEMORY, _memory()))
    return stopped


def metric_of(row: dict[str, Any], name: str) -> float | None:
    """A metric of an epoch by its key path, as `valid.val/best`; none where it has no finite value.

    Args:
        row: of metrics.jsonl.
        name: section and key with a dot between.
    """
    section, _, key = name.partition(".")
    found = row.get(section)
    value = found.get(key) if isinstance(found, dict) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class _Reporter:
    """Tells the storage the metric of every epoch, and ends a run that the sweep stops."""

    def __init__(self, claim: Claim, metric: str) -> None:
        self._claim, self._metric = claim, metric

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Steps are not told."""

    def epoch(self, report: EpochReport) -> None:
        """Tells the epoch; a database that is away costs its figure in the table and nothing else."""
        stop = False
        with contextlib.suppress(Exception):
            stop = self._claim.report(report.epoch + 1, metric_of(report.metrics, self._metric))
        if stop:
            raise StoppedEarly

    def finish(self, summary: dict[str, Any]) -> None:
        """The end is told with the claim."""


class _Pulse:
    """Says that the worker is alive while it has a cell, and ends it when its parent has died."""

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


def _memory() -> dict[str, int]:
    """What this process has needed at most, and what its device has, in bytes."""
    found = {"peak": peak_memory(torch.device("cpu"))[0]}
    if pick_device("auto").type == "cuda":
        free, total = torch.cuda.mem_get_info()
        found |= {"device_peak": torch.cuda.max_memory_reserved(), "device_free": free, "device_total": total}
    return found


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what follows must come to its end
    raise Terminated
