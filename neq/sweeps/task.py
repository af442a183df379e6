"""What a worker of a sweep is told, and how it ends; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from neq.sweeps.sweep_file import Sweep

# Exit codes of a worker beside those of any command.
GAVE_UP, DIED = 3, 4


@dataclass(frozen=True)
class Task:
    """The work of one worker.

    Args:
        storage: as the user named it; none: the file beside the runs.
        runs: folder of all runs.
        name: of the sweep in the storage.
        sweep: what it asks for.
        base: the settings that its runs start from, read once for all workers.
        worker: its name, not one of another.
        log: the file that takes all it prints.
        threads: of torch; none: torch's own choice.
        max_failures: in a row, after which it stops.
        failures: in a row so far, shared with the workers before it.
    """

    storage: str | None
    runs: Path
    name: str
    sweep: Sweep
    base: Mapping[str, object]
    worker: str
    log: Path
    threads: int | None
    max_failures: int
    failures: Synchronized[int]
