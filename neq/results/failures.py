"""Why cells of a sweep have no finished run, read from the storage of `neq sweep`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from neq.results.runs_of_sweep import IMAGES, key_of
from neq.runs.identity import plain_identity
from neq.runs.run_reader import Run
from neq.sweeps import Sweep, cells
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.storage import FILE, open_storage, unreachable_refused


def with_failures(runs: Iterable[Run], sweeps: Mapping[str, Sweep], runs_dir: Path) -> list[Run]:
    """The runs; those that are not done with the line that their cell failed with, or that it was stopped.

    Args:
        runs: as collected.
        sweeps: by the names of their files; a search's cells are not known by their settings and not told.
        runs_dir: where the file of `neq sweep` lies, if there is one; other storages are not asked.

    Raises:
        UserError: there is one, and it cannot be read.
    """
    reasons: dict[str, str] = {}
    if (runs_dir / FILE).exists():
        for file, sweep in sweeps.items():
            reasons |= _reasons(file, sweep, runs_dir) if sweep.method == "grid" else {}
    return [
        replace(run, reason=reasons[key])
        if run.state != "done" and (key := key_of(run.identity, IMAGES)) in reasons
        else run
        for run in runs
    ]


def _reasons(file: str, sweep: Sweep, runs_dir: Path) -> dict[str, str]:
    """By the cell's settings: the line that it failed with."""
    name = sweep_name(sweep, Path(file).stem, sweep.experiment().settings)
    queue = CellQueue(open_storage(None, runs_dir, reading=True), name, sweep)
    with closing(queue), unreachable_refused():
        states = queue.states() if queue.exists() else []
    failed = {state.cell: f"failed: {state.reason}" for state in states if state.state == "failed"}
    failed |= {state.cell: "stopped early (early_terminate)" for state in states if state.state == "stopped"}
    return {
        key_of(plain_identity(cell.config), IMAGES): failed[cell.number]
        for cell in (cells(sweep) if failed else ())
        if cell.number in failed
    }
