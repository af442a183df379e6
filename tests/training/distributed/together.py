"""Several processes that run one script, as torchrun would start them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

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
