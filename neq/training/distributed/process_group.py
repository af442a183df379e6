"""Process group setup, peer failure detection, and one error message per run.

Of the ranks on a machine, the one that first meets an error reports it; the others exit silently. A rank that
crashes without a report (killed, out of memory) is detected by the ranks on its machine, also while they are
blocked in a collective; one that hangs, or crashes on another machine, by a collective that times out.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

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
_COLLECTIVE_FAILS = 3.0  # seconds in which a collective with a dead rank fails by itself
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
    peers = _Peers(place)
    try:
        store = peers.join(patience)
        yield ProcessGroup(place.rank, place.count, place.local_rank, place.local_count, patience, store)
        peers.leave(store)
    except BaseException as error:
        if not peers.may_report():
            raise Ended(1 if peers.has_ended_this else exit_code(error)) from error
        died = peers.died()
        if died and isinstance(error, (ProcessLost, Terminated, dist.DistError)):
            # torchrun stops the other ranks as well when one has died.
            raise Ended(1, died_line(died[0])) from error
        if isinstance(error, ProcessLost):
            raise Ended(1, f"{error}; {_RESUME}") from error
        if peers.board is not None and isinstance(error, (KeyboardInterrupt, Terminated)):
            raise Ended(exit_code(error), str(error) or RUN_STOPPED) from error
        raise
    finally:
        peers.over.set()


class _Peers:
    """The connection of this rank to the others.

    Args:
        place: the rank of this process.

    Attributes:
        board: a folder that the ranks of this machine share, with a file `reported` once one of them reports
            why the run ends, and `left-RANK` of each that has left; none before they have met.
        over: set once the other ranks need no watching any more.
        has_ended_this: whether this process was stopped because another rank has died.
    """

    def __init__(self, place: LaunchRank) -> None:
        self._place = place
        self.board: Path | None = None
        self.over = threading.Event()
        self.has_ended_this = False
        self._others: dict[int, psutil.Process | None] = {}

    def join(self, patience: float) -> dist.Store:
        """Finds the other ranks and connects to them; returns the store that they share."""
        rank, count = self._place.rank, self._place.count
        late = UserError(
            f"the {count} processes of the run have not all started within {_START_TIMEOUT:.0f} s; start "
            "them with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each"
        )
        limit = timedelta(seconds=_START_TIMEOUT)
        try:
            connection, _, _ = next(rendezvous("env://", rank, count, timeout=limit))
        except (RuntimeError, ValueError) as error:
            raise late from error
        connection.set_timeout(timedelta(seconds=patience))
        store = dist.PrefixStore("neq", connection)
        store.set(f"at/{rank}", f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}")
        keys = [f"at/{other}" for other in range(count)]
        deadline = time.monotonic() + _START_TIMEOUT
        while not store.check(keys):  # not store.wait, which no signal ends
            if time.monotonic() > deadline:
                raise late
            time.sleep(0.05)
        found = [store.get(key).decode().split() for key in keys]
        self.board = Path(tempfile.gettempdir()) / f"neq-{found[0][2]}"
        self.board.mkdir(exist_ok=True)
        for other, (host, pid, _) in enumerate(found):
            if other != rank and host == socket.gethostname():
                self._others[other] = _process(int(pid))
        threading.Thread(target=self._watch, daemon=True).start()
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
            store=dist.PrefixStore("torch", connection.clone()),  # one that is blocked blocks no other
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=patience),
        )
        return store

    def leave(self, store: dist.Store) -> None:
        """Leaves the group after a successful run; rank 0 leaves last, since it may hold the store."""
        assert self.board is not None
        (self.board / f"left-{self._place.rank}").touch()
        if self._place.rank == 0:
            keys = [f"left/{rank}" for rank in range(1, self._place.count)]
            while not store.check(keys):
                time.sleep(0.05)
        self.over.set()
        if self._place.rank == 0:
            shutil.rmtree(self.board, ignore_errors=True)
        else:
            store.set(f"left/{self._place.rank}", "")
        dist.destroy_process_group()

    def may_report(self) -> bool:
        """Whether this rank is the first on its machine that asks, and so reports why the run ends."""
        if self.board is not None:
            try:
                (self.board / "reported").touch(exist_ok=False)
            except FileExistsError:
                return False
            except OSError:
                pass  # better reported twice than not at all
        return True

    def died(self) -> list[int]:
        """The ranks on this machine that have ended before the run has."""
        return [
            rank
            for rank, process in self._others.items()
            if _is_gone(process) and self.board is not None and not (self.board / f"left-{rank}").exists()
        ]

    def _watch(self) -> None:
        """Reports that another rank has died, and ends this process, in order if possible."""
        while not self.over.wait(_POLL):
            died = self.died()
            if not died or self.over.is_set():
                continue
            if self.may_report():
                print(f"neq: {died_line(died[0])}", file=sys.stderr, flush=True)
            if not self.over.wait(_COLLECTIVE_FAILS):
                self.has_ended_this = True
                os.kill(os.getpid(), signal.SIGTERM)
                if not self.over.wait(1):  # the first one only requests a stop at the end of a step
                    os.kill(os.getpid(), signal.SIGTERM)
            if not self.over.wait(_EXIT_TIMEOUT):
                os._exit(1)  # blocked in a call that no signal ends
            return


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
