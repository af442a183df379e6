"""The runs of a grid that a search asks for: recorded at once, resumed, never trained twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from neq.config.writing import flow_value
from neq.experiment.experiment import Experiment
from neq.runs import read_summary
from neq.sweeps.cells import Cell, read_cells
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import SweepUpdate, run_sweep
from neq.sweeps.storage import open_storage, patiently
from neq.sweeps.sweep_file import Sweep
from neq.sweeps.worker_pool import WorkerPool, cores
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

# In the line of every run whose loss is no longer finite: what diverges is not chosen, and not an error.
DIVERGED = "try a lower base_lr"
_FAILURES = 5
Follow = Callable[[CellQueue, SweepUpdate], None]


@dataclass(frozen=True)
class GridRuns:
    """Runs the cells of sweep files on the sweep engine.

    Args:
        runs: folder of all runs.
        storage, workers: as of `neq sweep`.
        follow: called with the progress twice a second.
    """

    runs: Path
    storage: str | None = None
    workers: int | None = 1
    follow: Follow = lambda queue, update: None

    def __call__(self, file: Path, text: str) -> list[tuple[Cell, Path]]:
        """The cells of a sweep file with the folders of their runs; those that diverged are left out.

        Args:
            file: to write; neq sweep and neq results read it too.
            text: of it, such as `grid_text` returns.

        Raises:
            UserError: a run failed otherwise; the others are kept.
        """
        write_text(file, text)
        sweep, cells = read_cells(file)
        experiment = sweep.experiment()
        diverged: set[int] = set()
        if any(experiment.find(cell.config, self.runs).state != "done" for cell in cells):
            diverged = self._train(sweep, experiment, file)
        found: list[tuple[Cell, Path]] = []
        for cell in cells:
            place = experiment.find(cell.config, self.runs)
            if place.state == "done":
                found.append((cell, place.folder))
            elif cell.number not in diverged:
                raise UserError(
                    f"the run of cell {cell.number} of {file} is gone, though the sweep has it as done; put "
                    "the run back, or move the database of sweeps away to train it again"
                )
        return found

    def _train(self, sweep: Sweep, experiment: Experiment, file: Path) -> set[int]:
        """Runs the cells that are not done, and again those that failed; returns those that diverged."""
        queue = CellQueue(
            open_storage(self.storage, self.runs), sweep_name(sweep, file.stem, experiment.settings), sweep
        )
        with closing(queue):
            patiently(queue.begin)
            if any(state.state == "failed" and not _diverged(state) for state in patiently(queue.states)):
                patiently(lambda: queue.enqueue(failed=True))
            slots = self.workers or cores()
            # What diverges stops no worker.
            failures = _FAILURES + (queue.size or 0)
            pool = WorkerPool(queue, experiment, self.storage, self.runs, slots, failures)
            try:
                for update in run_sweep(queue, pool, self.workers):
                    self.follow(queue, update)
            finally:
                pool.stop()
        left = [state for state in update.states if state.state != "done" and not _diverged(state)]
        if left:
            reason = left[0].reason or "every worker has stopped"
            raise UserError(
                f"{len(left)} of the {len(update.states)} runs of {file} are not done ({reason}); mend what "
                "fails, then run the same command again"
            )
        return {state.cell for state in update.states if _diverged(state)}


def grid_text(
    comment: str,
    name: str,
    config_file: str,
    settings: Mapping[str, object],
    seeds: Sequence[int],
    varied: Sequence[str],
) -> str:
    """The text of a sweep file of a grid.

    Args:
        comment: its first line.
        name: of the sweep.
        config_file: that the runs start from, by name or path.
        settings: the same in every run, by key.
        seeds: of the runs of each point of the grid.
        varied: the lines of the parameter that is tried.
    """
    command = ["python3", "${program}", "--config-file", config_file, "${args}"]
    return "\n".join(
        [
            f"# {comment}; neq sweep and neq results read this file too.",
            "program: train_classification.py",
            f"name: {name}",
            "method: grid",
            "metric: {name: valid.val/best, goal: maximize}",
            f"command: {flow_value(command)}",
            "parameters:",
            *(f"  {key}: {{value: {flow_value(value)}}}" for key, value in sorted(settings.items())),
            f"  manual_seed: {{values: {flow_value(list(seeds))}}}",
            *varied,
            "",
        ]
    )


def mean_summary(folders: Sequence[Path], names: Sequence[str]) -> tuple[float, ...]:
    """The means over runs of some figures of their summaries.

    Args:
        folders: of finished runs.
        names: keys of summary.json.
    """
    summaries = [read_summary(folder) for folder in folders]
    return tuple(mean(summary[name] for summary in summaries) for name in names)


def _diverged(state: CellState) -> bool:
    return state.state == "failed" and DIVERGED in state.reason
