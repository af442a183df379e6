"""The launch environment of a distributed run: rank and world size, and one output for all processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neq.utils.errors import UserError, shown
from neq.utils.exit_codes import Ended, exit_code

_HEAD_START = 10.0  # seconds


@dataclass(frozen=True)
class LaunchRank:
    """The rank of a process in its run.

    Args:
        rank: 0 .. count - 1.
        count: the world size.
        local_rank: its rank on its machine.
        local_count: the number of processes on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1


def launch_rank(environment: Mapping[str, str] = os.environ) -> LaunchRank:
    """The rank of this process by its environment, as torchrun sets it.

    Args:
        environment: WORLD_SIZE and RANK; LOCAL_RANK and LOCAL_WORLD_SIZE, without which all processes run on
            one machine.

    Raises:
        UserError: they contradict each other.
    """
    count = _number(environment, "WORLD_SIZE", "1", 1)
    if count == 1:
        return LaunchRank()
    rank = _number(environment, "RANK", None, 0)
    local_count = _number(environment, "LOCAL_WORLD_SIZE", str(count), 1)
    local_rank = _number(environment, "LOCAL_RANK", str(rank), 0)
    if rank >= count or local_rank >= local_count:
        raise UserError(
            f"RANK {rank} of WORLD_SIZE {count} (LOCAL_RANK {local_rank} of {local_count}) is no process of "
            "the run; ranks are counted from 0"
        )
    return LaunchRank(rank, count, local_rank, local_count)


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


def reports_signals() -> bool:
    """Whether this rank reports a signal that arrives before the process group exists.

    torchrun stops the other ranks as soon as rank 0 has reported a mistake in the flags.
    """
    with contextlib.suppress(UserError):  # a contradiction in the environment is reported later
        return launch_rank().rank == 0
    return True


@contextlib.contextmanager
def one_output() -> Iterator[None]:
    """Gives rank 0 the standard output, and the other ranks none."""
    place = launch_rank()
    if place.count > 1:
        quiet_connections()
    if place.rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def quiet_connections() -> None:
    """Silences torch's C++ log of lost connections; called before torch is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


@contextlib.contextmanager
def first_reports() -> Iterator[None]:
    """Lets rank 0 report a mistake that every rank meets before the process group exists.

    Raises:
        Ended: on the other ranks.
    """
    try:
        yield
    except UserError as error:
        if launch_rank().rank == 0:
            raise
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            raise Ended(exit_code(error)) from error
        # torchrun stops all ranks as soon as one has ended: let that be rank 0, if it meets the mistake too.
        time.sleep(_HEAD_START)
        raise
