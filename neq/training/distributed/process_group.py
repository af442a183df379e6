"""Process group setup, peer failure detection, and one error message per run.

The rank that first meets an error reports it; the other ranks exit silently. A rank that crashes without a
report (killed, out of memory) is detected by the ranks on its machine, also while they are blocked in a
collective; one that hangs, or crashes on another machine, by a collective that times out.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from neq.training.distributed.collectives import PATIENCE, ProcessGroup, ProcessLost
from neq.utils.errors import UserError
from neq.utils.exit_codes import RUN_STOPPED, Ended, Terminated, exit_code
from neq.utils.launch_env import LaunchRank, launch_rank

_START_TIMEOUT = 120.0  # seconds for all ranks to start
_RESUME = "run the same command again with --resume to continue from the last checkpoint"
_POLL = 0.5
_REPORTED = "reported"  # counts, in the store, the ranks that asked to report
_COLLECTIVE_FAILS = 3.0  # seconds in which a collective with a dead rank fails by itself
_STORE_TIMEOUT = 3.0
_ALL_NOTICE = 3.0  # seconds for which rank 0, which may hold the store, waits for the others after a report
_EXIT_TIMEOUT = 20.0  # seconds to end in order


@contextmanager
def process_group(
    environment: Mapping[str, str] = os.environ, patience: float = PATIENCE
) -> Iterator[ProcessGroup]:
    """The process group of the run; of this process alone unless the environment has a larger WORLD_SIZE.

    Args:
        environment: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them.
        patience: timeout of a collective within an epoch, in seconds.

    Raises:
        UserError: the environment is incomplete, or not all ranks have started in time.
        Ended: the run has ended, and this rank or another one reports why.
    """
    place = launch_rank(environment)
    if place.count == 1:
        yield ProcessGroup()
        return
    with _ending(place, patience) as peers:
        peers.join()
        yield ProcessGroup(
            place.rank, place.count, place.local_rank, place.local_count, patience, peers.store
        )
        peers.leave()


class _Peers:
    """The connection of this rank to the others.

    Args:
        place: the rank of this process.
        patience: timeout of a collective, in seconds.
    """

    def __init__(self, place: LaunchRank, patience: float) -> None:
        self.place = place
        self.patience = patience
        self.store: dist.Store | None = None
        self.has_ended_this = False
        self._others: dict[int, psutil.Process | None] = {}
        self._over = threading.Event()
        self._asking, self._has_asked = threading.Lock(), False

    def join(self) -> None:
        """Finds the other ranks and connects to them."""
        limit = timedelta(seconds=_START_TIMEOUT)
        late = UserError(
            f"the {self.place.count} processes of the run have not all started within "
            f"{_START_TIMEOUT:.0f} s; start them with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and "
            "MASTER_PORT for each"
        )
        try:
            store, _, _ = next(rendezvous("env://", self.place.rank, self.place.count, timeout=limit))
        except (RuntimeError, ValueError) as error:
            raise late from error
        store.set_timeout(timedelta(seconds=self.patience))
        self.store = dist.PrefixStore("neq", store)
        self.store.set(f"at/{self.place.rank}", f"{socket.gethostname()} {os.getpid()}")
        keys = [f"at/{rank}" for rank in range(self.place.count)]
        deadline = time.monotonic() + _START_TIMEOUT
        while not self.store.check(keys):  # not store.wait, which no signal ends
            if time.monotonic() > deadline:
                raise late
            time.sleep(0.05)
        for rank, key in enumerate(keys):
            host, pid = self.store.get(key).decode().split()
            if rank != self.place.rank and host == socket.gethostname():
                self._others[rank] = _process(int(pid))
        for work in (self._watch, self._listen):
            threading.Thread(target=work, daemon=True).start()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(
                "torch", store.clone()
            ),  # a store of its own: a blocked one would block the calls above
            rank=self.place.rank,
            world_size=self.place.count,
            timeout=timedelta(seconds=self.patience),
        )

    def leave(self) -> None:
        """Leaves the group after a successful run; rank 0 leaves last, since it may hold the store."""
        assert self.store is not None
        self.store.set(f"left/{self.place.rank}", "")
        if self.place.rank == 0:
            keys = [f"left/{rank}" for rank in range(self.place.count)]
            while not self.store.check(keys):
                time.sleep(0.05)
        self.stop()
        dist.destroy_process_group()

    def stop(self) -> None:
        """Stops watching the other ranks."""
        self._over.set()

    def wait_until_noticed(self) -> None:
        """Keeps rank 0, which may hold the store, until the other ranks know that the error is reported."""
        if self.place.rank != 0 or self.store is None:
            return
        others, deadline = range(1, self.place.count), time.monotonic() + _ALL_NOTICE
        while time.monotonic() < deadline and not all(map(self._has_noticed, others)):
            time.sleep(0.05)

    def may_report(self) -> bool:
        """Whether this rank is the first that asks, and so reports why the run ends."""
        with self._asking:
            if self._has_asked:
                return False
            self._has_asked = True
        return self._answer(self._ask, otherwise=True)  # better reported twice than not at all

    def _ask(self, store: dist.Store) -> bool:
        is_first = int(store.add(_REPORTED, 1)) == 1
        store.set(f"noticed/{self.place.rank}", "")
        return is_first

    def died(self) -> list[int]:
        """The ranks on this machine that have ended before the run has."""
        gone = [rank for rank, process in self._others.items() if _is_gone(process)]
        return [rank for rank in gone if not self._has_left(rank)]

    def _watch(self) -> None:
        """Reports that another rank has died, and ends this process, in order if possible."""
        while not self._over.wait(_POLL):
            died = self.died()
            if not died or self._over.is_set():
                continue
            if self.may_report():
                print(f"neq: {died_line(died[0])}", file=sys.stderr, flush=True)
            if not self._over.wait(_COLLECTIVE_FAILS):
                self.has_ended_this = True
                os.kill(os.getpid(), signal.SIGTERM)
                if not self._over.wait(1):  # the first one only requests a stop at the end of a step
                    os.kill(os.getpid(), signal.SIGTERM)
            if not self._over.wait(_EXIT_TIMEOUT):
                os._exit(1)  # blocked in a call that no signal ends
            return

    def _listen(self) -> None:
        """Notices that another rank reports why the run ends, while the store still exists."""
        assert self.store is not None
        while not self._over.wait(_POLL):
            with suppress(RuntimeError):
                if self.store.check([_REPORTED]):
                    self.may_report()
                    return

    def _has_left(self, rank: int) -> bool:
        return self._is_written(f"left/{rank}")

    def _has_noticed(self, rank: int) -> bool:
        is_gone = rank in self._others and _is_gone(self._others[rank])
        return is_gone or self._is_written(f"noticed/{rank}")

    def _is_written(self, key: str) -> bool:
        return self._answer(lambda store: bool(store.check([key])), otherwise=False)

    def _answer(self, question: Callable[[dist.Store], bool], otherwise: bool) -> bool:
        """The answer of the store, which may be gone, or hang where no signal ends the wait."""
        answer = [otherwise]

        def ask() -> None:
            with suppress(RuntimeError):
                if self.store is not None:
                    answer[0] = question(self.store)

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        asker.join(_STORE_TIMEOUT)
        return answer[0]


@contextmanager
def _ending(place: LaunchRank, patience: float) -> Iterator[_Peers]:
    """Lets one rank report why the run ends."""
    peers = _Peers(place, patience)
    try:
        yield peers
    except BaseException as error:
        may_report, died = peers.may_report(), peers.died()
        peers.stop()
        with suppress(KeyboardInterrupt, Terminated):  # the first error is what ends the run
            peers.wait_until_noticed()
        if not may_report:
            raise Ended(1 if peers.has_ended_this else exit_code(error)) from error
        if died and isinstance(error, (ProcessLost, Terminated)):
            # torchrun stops the other ranks as well when one has died.
            raise Ended(1, died_line(died[0])) from error
        if isinstance(error, ProcessLost):
            raise Ended(1, f"{error}; {_RESUME}") from error
        if peers.store is not None and isinstance(error, (KeyboardInterrupt, Terminated)):
            raise Ended(exit_code(error), str(error) or RUN_STOPPED) from error
        raise
    finally:
        peers.stop()


def died_line(rank: int) -> str:
    """The report that a rank on this machine has died."""
    return f"process {rank} of the run has died; {_RESUME}"


def _process(pid: int) -> psutil.Process | None:
    """A process to watch; None if it has died already."""
    with suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def _is_gone(process: psutil.Process | None) -> bool:
    """Whether a process has ended, a zombie included."""
    with suppress(psutil.Error):
        return process is None or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True
