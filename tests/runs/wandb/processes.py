"""Waiting for processes, and whether one is left behind."""

import os
import time
from pathlib import Path


def wait_until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left_behind():
    """The processes in this one's folder, a test's own: what was started there, and the client's child."""
    here, found = Path.cwd(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == here and int(process.name) != os.getpid():
                found.append(int(process.name))
        except OSError:
            continue
    return found
