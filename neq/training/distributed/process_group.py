"""Joining the other processes of a run (torchrun), noticing that one has died, and ending with one voice.

Whichever process first meets what ends the run says so; the others end without a word. A process that dies
without one (killed, out of memory) is noticed by those that are left on its machine, also while they are
blocked in an exchange; one that hangs, or dies elsewhere, by an exchange that is not answered in time.
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
from neq.utils.launch_env import Place, place_in_environment

_JOINING = 120.0  # seconds that a process waits for the others to start
_RESUME = "the same command with --resume goes on from the last checkpoint"
_POLL = 0.5
_SPOKEN = "spoken"  # the store counts who has asked to speak
_EXCHANGE_FAILS = 3.0  # seconds in which an exchange with a process that has died fails by itself
_STORE_ANSWERS = 3.0
_ALL_HEAR = 3.0  # seconds that the process with the store stays for the others after the word
_LAST = 20.0  # seconds that are then left to end in order


@contextmanager
def joined(environment: Mapping[str, str] = os.environ, patience: float = PATIENCE) -> Iterator[ProcessGroup]:
    """The processes of the run, if the environment says that there are several; else this one.

    Args:
        environment: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them.
        patience: seconds that an exchange within an epoch waits.

    Raises:
        UserError: the environment is incomplete, or not all processes have started in time.
        Ended: the run has ended, and this process or another one says why.
    """
    place = place_in_environment(environment)
    if place.count == 1:
        yield ProcessGroup()
        return
    with _ending(place, patience) as bond:
        bond.join()
        yield ProcessGroup(place.rank, place.count, place.local_rank, place.local_count, patience, bond.store)
        bond.leave()


class _Bond:
    """What ties this process to the others.

    Args:
        place: of this process.
        patience: seconds that an exchange waits.
    """

    def __init__(self, place: Place, patience: float) -> None:
        self.place = place
        self.patience = patience
        self.store: dist.Store | None = None
        self.has_ended_this = False
        self._peers: dict[int, psutil.Process | None] = {}
        self._over = threading.Event()
        self._asking, self._has_asked = threading.Lock(), False

    def join(self) -> None:
        """Finds the others and connects to them."""
        limit = timedelta(seconds=_JOINING)
        late = UserError(
            f"the {self.place.count} processes of the run have not all started within {_JOINING:.0f} s; "
            "start them with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each"
        )
        try:
            store, _, _ = next(rendezvous("env://", self.place.rank, self.place.count, timeout=limit))
        except (RuntimeError, ValueError) as error:
            raise late from error
        store.set_timeout(timedelta(seconds=self.patience))
        self.store = dist.PrefixStore("neq", store)
        self.store.set(f"at/{self.place.rank}", f"{socket.gethostname()} {os.getpid()}")
        keys = [f"at/{rank}" for rank in range(self.place.count)]
        deadline = time.monotonic() + _JOINING
        while not self.store.check(keys):  # not store.wait, which no signal ends
            if time.monotonic() > deadline:
                raise late
            time.sleep(0.05)
        for rank, key in enumerate(keys):
            host, pid = self.store.get(key).decode().split()
            if rank != self.place.rank and host == socket.gethostname():
                self._peers[rank] = _process(int(pid))
        for work in (self._watch, self._listen):
            threading.Thread(target=work, daemon=True).start()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("torch", store.clone()),  # blocked, it would keep those above waiting
            rank=self.place.rank,
            world_size=self.place.count,
            timeout=timedelta(seconds=self.patience),
        )

    def leave(self) -> None:
        """The end of a run that has gone well; the first process leaves last, since it may hold the store."""
        assert self.store is not None
        self.store.set(f"left/{self.place.rank}", "")
        if self.place.rank == 0:
            keys = [f"left/{rank}" for rank in range(self.place.count)]
            while not self.store.check(keys):
                time.sleep(0.05)
        self.stop()
        dist.destroy_process_group()

    def stop(self) -> None:
        """Ends the watch over the others."""
        self._over.set()

    def wait_until_heard(self) -> None:
        """The first process, which may hold the store, stays until the others know that the word is said."""
        if self.place.rank != 0 or self.store is None:
            return
        others, deadline = range(1, self.place.count), time.monotonic() + _ALL_HEAR
        while time.monotonic() < deadline and not all(map(self._has_heard, others)):
            time.sleep(0.05)

    def may_speak(self) -> bool:
        """Whether this process is the first that asks; it then says why the run ends."""
        with self._asking:
            if self._has_asked:
                return False
            self._has_asked = True
        return self._answer(self._ask, otherwise=True)  # better said twice than not at all

    def _ask(self, store: dist.Store) -> bool:
        is_first = int(store.add(_SPOKEN, 1)) == 1
        store.set(f"heard/{self.place.rank}", "")
        return is_first

    def died(self) -> list[int]:
        """The processes of this machine that have ended before the run has."""
        gone = [rank for rank, process in self._peers.items() if _is_gone(process)]
        return [rank for rank in gone if not self._has_left(rank)]

    def _watch(self) -> None:
        """Waits for one of the others to die, says so, and ends this process, in order if that can be."""
        while not self._over.wait(_POLL):
            died = self.died()
            if not died or self._over.is_set():
                continue
            if self.may_speak():
                print(f"neq: {died_line(died[0])}", file=sys.stderr, flush=True)
            if not self._over.wait(_EXCHANGE_FAILS):
                self.has_ended_this = True
                os.kill(os.getpid(), signal.SIGTERM)
                if not self._over.wait(1):  # the first one asks to stop at the end of a step
                    os.kill(os.getpid(), signal.SIGTERM)
            if not self._over.wait(_LAST):
                os._exit(1)  # blocked in a call that no signal ends
            return

    def _listen(self) -> None:
        """Waits for another process to say why the run ends; asks after it while the store is there."""
        assert self.store is not None
        while not self._over.wait(_POLL):
            with suppress(RuntimeError):
                if self.store.check([_SPOKEN]):
                    self.may_speak()
                    return

    def _has_left(self, rank: int) -> bool:
        return self._is_written(f"left/{rank}")

    def _has_heard(self, rank: int) -> bool:
        is_gone = rank in self._peers and _is_gone(self._peers[rank])
        return is_gone or self._is_written(f"heard/{rank}")

    def _is_written(self, key: str) -> bool:
        return self._answer(lambda store: bool(store.check([key])), otherwise=False)

    def _answer(self, question: Callable[[dist.Store], bool], otherwise: bool) -> bool:
        """What the store answers, which may be gone, or hang where no signal ends the wait."""
        answer = [otherwise]

        def ask() -> None:
            with suppress(RuntimeError):
                if self.store is not None:
                    answer[0] = question(self.store)

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        asker.join(_STORE_ANSWERS)
        return answer[0]


@contextmanager
def _ending(place: Place, patience: float) -> Iterator[_Bond]:
    """Lets one process say why the run ends."""
    bond = _Bond(place, patience)
    try:
        yield bond
    except BaseException as error:
        may_speak, died = bond.may_speak(), bond.died()
        bond.stop()
        with suppress(KeyboardInterrupt, Terminated):  # what came first is what ends the run
            bond.wait_until_heard()
        if not may_speak:
            raise Ended(1 if bond.has_ended_this else exit_code(error)) from error
        if died and isinstance(error, (ProcessLost, Terminated)):
            # torchrun stops the others, too, when one of them has died.
            raise Ended(1, died_line(died[0])) from error
        if isinstance(error, ProcessLost):
            raise Ended(1, f"{error}; {_RESUME}") from error
        if bond.store is not None and isinstance(error, (KeyboardInterrupt, Terminated)):
            raise Ended(exit_code(error), str(error) or RUN_STOPPED) from error
        raise
    finally:
        bond.stop()


def died_line(rank: int) -> str:
    """What is said when a process of this machine has died."""
    return f"process {rank} of the run has died; {_RESUME}"


def _process(pid: int) -> psutil.Process | None:
    """A process to watch; none if it has died already."""
    with suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def _is_gone(process: psutil.Process | None) -> bool:
    """Whether a process has ended, though nobody may have asked for its exit code yet."""
    with suppress(psutil.Error):
        return process is None or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True
