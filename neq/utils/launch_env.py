"""One of several processes of a run: which one this is, and that together they speak with one voice."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neq.utils.errors import UserError, shown
from neq.utils.exit_codes import Ended, exit_code

_HEAD_START = 10.0  # seconds


@dataclass(frozen=True)
class Place:
    """The place of a process among those of its run.

    Args:
        rank: 0 .. count - 1.
        count: of all processes.
        local_rank: among those of its machine.
        local_count: of those.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1


def place_in_environment(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that the environment gives this process, as torchrun sets it.

    Args:
        environment: WORLD_SIZE and RANK; LOCAL_RANK and LOCAL_WORLD_SIZE, without which all processes are on
            one machine.

    Raises:
        UserError: they do not fit together.
    """
    count = _number(environment, "WORLD_SIZE", "1", 1)
    if count == 1:
        return Place()
    rank = _number(environment, "RANK", None, 0)
    local_count = _number(environment, "LOCAL_WORLD_SIZE", str(count), 1)
    local_rank = _number(environment, "LOCAL_RANK", str(rank), 0)
    if rank >= count or local_rank >= local_count:
        raise UserError(
            f"RANK {rank} of WORLD_SIZE {count} (LOCAL_RANK {local_rank} of {local_count}) is no process of "
            "the run; ranks count from 0"
        )
    return Place(rank, count, local_rank, local_count)


def _number(environment: Mapping[str, str], name: str, default: str | None, least: int) -> int:
    text = environment.get(name, default)
    if text is None:
        raise UserError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but {name} is not set; start the processes with "
            "torchrun --nproc-per-node 2 train_classification.py, or unset WORLD_SIZE"
        )
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name} {shown(text)} in the environment is not a number from {least}")
    return int(text)


def may_be_heard() -> bool:
    """Whether a signal that stops this process before it knows of the others is its own to tell.

    torchrun stops the others as soon as the first process has told a mistake in the flags.
    """
    with contextlib.suppress(UserError):  # an environment that does not fit together is told later
        return place_in_environment().rank == 0
    return True


@contextlib.contextmanager
def one_output() -> Iterator[None]:
    """Of several processes the first alone has a standard output."""
    place = place_in_environment()
    if place.count > 1:
        quiet_connections()
    if place.rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def quiet_connections() -> None:
    """Keeps torch from telling in pages of C++ that a process has gone; called before torch is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


@contextlib.contextmanager
def first_tells() -> Iterator[None]:
    """A mistake that every process meets before they know of each other is the first one's to tell.

    Raises:
        Ended: it is told there.
    """
    try:
        yield
    except UserError as error:
        if place_in_environment().rank == 0:
            raise
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            raise Ended(exit_code(error)) from error
        # torchrun ends all as soon as one has ended: let that be the first, if it has met the mistake too.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_HEAD_START)
        raise
