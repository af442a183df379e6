"""The pool of worker processes of a sweep: started, watched, replaced when they die, stopped."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from neq.experiment.experiment import Experiment
from neq.sweeps.queue import CellQueue
from neq.sweeps.storage import database_errors, patiently
from neq.sweeps.worker import DIED, GAVE_UP, Task, work
from neq.utils.errors import UserError

# Seconds in which workers that are stopped may save their runs.
FAREWELL = 60.0
# Bytes that a process takes on a CUDA device beside the memory that torch counts.
CUDA_CONTEXT = 600 * 2**20


@dataclass
class _Slot:
    """A slot for one worker after another."""

    task: Task
    process: BaseProcess | None = None
    starts: int = 0
    gave_up: bool = False

    @property
    def is_alive(self) -> bool:
        return self.process is not None


class WorkerPool:
    """A pool of worker slots.

    Args:
        queue: whose cells the workers run.
        experiment: what runs them.
        storage: as the user named it.
        runs: folder of all runs.
        slots: the most workers at a time, which share the cores.
        max_failures: in a row, after which a slot stays empty.
        finished: called in the worker with the folder of every finished run, returns lines for the log; a
            function of a module, since it is pickled.
    """

    def __init__(
        self,
        queue: CellQueue,
        experiment: Experiment,
        storage: str | None,
        runs: Path,
        slots: int,
        max_failures: int,
        finished: Callable[[Path], Iterable[str]] | None = None,
    ) -> None:
        # Of torch; a single worker takes torch's own choice.
        self._threads = max(1, cores() // slots) if slots > 1 else None
        self._queue, self._experiment, self._storage, self._runs = queue, experiment, storage, runs
        self._max_failures, self._finished = max_failures, finished
        # A server process imports torch once; workers are forked from it, also those that replace another.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            also = () if finished is None else (finished.__module__,)
            self._context.set_forkserver_preload([__name__, *experiment.preload, *also])
        self._logs = runs / "sweeps" / queue.name
        self._slots: list[_Slot] = []

    @property
    def alive(self) -> int:
        """The number of workers that run."""
        return sum(slot.is_alive for slot in self._slots)

    @property
    def gave_up(self) -> int:
        """The number of slots that start no worker any more."""
        return sum(slot.gave_up for slot in self._slots)

    def keep(self, count: int, waiting: int) -> None:
        """Starts workers where fewer than `count` run and cells wait.

        Args:
            count: slots in use.
            waiting: cells that no worker has taken.
        """
        while len(self._slots) < count:
            self._slots.append(_Slot(self._task(len(self._slots))))
        for slot in self._slots:
            if waiting > 0 and not slot.is_alive and not slot.gave_up:
                self._start(slot)
                waiting -= 1

    def watch(self) -> list[str]:
        """Collects workers that ended; returns a line for each that ended abnormally."""
        lines = []
        for at, slot in enumerate(self._slots):
            process = slot.process
            if process is None or process.is_alive():
                continue
            process.join()
            code, slot.process = process.exitcode, None
            if code == GAVE_UP:
                lines.append(self._give_up(at, slot))
            elif code not in (0, DIED, 143):
                patiently(partial(self._queue.release, slot.task.worker))
                slot.task.failures.value += 1
                lines.append(f"worker {at} died ({_how(code)}); its cell goes to another")
                if slot.task.failures.value >= self._max_failures:
                    lines.append(self._give_up(at, slot))
        return lines

    def stop(self) -> None:
        """Stops all workers: they save their runs and give their cells back."""
        running = [slot for slot in self._slots if slot.process is not None]
        for slot in running:
            assert slot.process is not None
            slot.process.terminate()
        end = time.monotonic() + FAREWELL
        for slot in running:
            assert slot.process is not None
            slot.process.join(max(0.0, end - time.monotonic()))
            if slot.process.is_alive():
                slot.process.kill()
                slot.process.join()
            slot.process = None
            # Unreachable: the worker gave its cell back, or its heartbeat will time out.
            with contextlib.suppress(*database_errors()):
                self._queue.release(slot.task.worker)

    def kill(self) -> None:
        """Kills all workers."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()

    def _task(self, at: int) -> Task:
        log = self._logs / f"{socket.gethostname()}-{at}.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.open("a").close()
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be written ({error.strerror}); give another --runs-dir"
            ) from None
        failures = self._context.Value("i", 0)
        return Task(
            self._storage, self._runs, self._queue.name, self._queue.sweep, self._experiment, self._finished,
            "", log, self._threads, self._max_failures, failures,
        )  # fmt: skip

    def _start(self, slot: _Slot) -> None:
        slot.starts += 1
        worker = f"{socket.gethostname()}:{os.getpid()}:{slot.task.log.stem}:{slot.starts}"
        slot.task = replace(slot.task, worker=worker)
        process = self._context.Process(target=_work, args=(slot.task,), name="neq sweep worker")
        self._start_server()
        try:
            process.start()
        except BaseException:
            if self.alive == 0:
                _end_server()  # it still imports, and would start the worker afterwards
            raise
        slot.process = process  # not before: a process whose start was interrupted cannot be ended

    def _start_server(self) -> None:
        """Starts the server process where it does not run, with SIGINT ignored from its first moment."""
        if self._context.get_start_method() != "forkserver":
            return
        former = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, former)

    def _give_up(self, at: int, slot: _Slot) -> str:
        slot.gave_up = True
        return f"worker {at} stops after {slot.task.failures.value} failures in a row; see {slot.task.log}"


def _work(task: Task) -> None:
    """The main function of a worker's process."""
    os.setsid()  # Ctrl-C in the terminal reaches the parent alone, which stops its workers
    with open(os.devnull) as nothing, task.log.open("a", encoding="utf-8", buffering=1) as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.exit(work(task))


def is_here(worker: str) -> bool:
    """Whether the worker of that name is on this machine."""
    return worker.startswith(f"{socket.gethostname()}:")


def _end_server() -> None:
    """Kills the server process, whose workers would be orphans."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                child.kill()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_that_fit(memories: Sequence[dict[str, int]], running: int = 1) -> tuple[int, str]:
    """The number of workers that fit on this machine, and why.

    Args:
        memories: peak bytes of workers here, as `RunResult.memory`; one or more.
        running: workers that hold their memory now.
    """
    peak = max(memory["peak"] for memory in memories)
    free = psutil.virtual_memory().available
    by_memory, what = (
        running + int(0.9 * free) // peak,
        f"{_size(free)} of memory free, {_size(peak)} a worker",
    )
    on_device = [memory for memory in memories if "device_peak" in memory]
    if on_device:
        taken = max(memory["device_peak"] for memory in on_device) + CUDA_CONTEXT
        left = min(memory["device_free"] for memory in on_device)
        by_memory = min(by_memory, running + int(0.9 * left) // taken)
        what += f"; on the device {_size(left)} and {_size(taken)}"
    return max(1, min(cores(), by_memory)), f"{cores()} cores; {what}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _how(code: int | None) -> str:
    return f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
