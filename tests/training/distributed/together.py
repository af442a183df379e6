"""Several processes that run one script, as torchrun would start them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tests.forked import ROOT, Forked

ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def start(count: int, script: str, *arguments: str, **environment: str) -> list[Forked]:
    """Starts the processes; they know each other by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    Args:
        count: of processes.
        script: Python code.
        arguments: of the script.
        environment: more of it, or others than these.
    """
    meeting = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        Forked(script, *arguments, cwd=ROOT, env={**meeting, "RANK": str(rank), **environment})
        for rank in range(count)
    ]


def ended(processes: Sequence[Forked], timeout: float = 900) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each; those that do not end are killed."""
    found = []
    try:
        for process in processes:
            output, error = process.communicate(timeout=timeout)
            assert process.returncode is not None
            found.append((process.returncode, output, error))
    finally:
        for process in processes:
            process.kill()
    return found


_WORKER = """
import sys, torch
from importlib import import_module
from pathlib import Path
from neq.training.distributed.process_group import process_group

folder, module, name = sys.argv[1:]
torch.set_num_threads(1)
with process_group() as processes:
    found = getattr(import_module(module), name)(Path(folder, "run"), processes)
    torch.save(found, f"{folder}/{processes.rank}.pt")
"""


def assert_two_are_one(
    trained: Callable[..., list[Tensor]], folder: Path, rtol: float = 1e-9, atol: float = 1e-11
) -> None:
    """Asserts that each of two processes ends with the tensors of one.

    Args:
        trained: a function of a test module that returns them: folder of the run, processes (by default one).
        folder: of all runs.
        rtol, atol: of the tensors.
    """
    for code, _, error in ended(start(2, _WORKER, str(folder), trained.__module__, trained.__name__)):
        assert code == 0, error
    one = trained(folder / "one")
    for rank in range(2):
        for mine, theirs in zip(one, torch.load(folder / f"{rank}.pt", weights_only=True), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)
