"""The trials of a search as cells of sweeps: recorded by their runs, resumed, never trained twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from neq.config.writing import flow_value
from neq.experiment.experiment import Experiment
from neq.runs import read_summary
from neq.sweeps import Sweep, read_cells
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import SweepUpdate, run_sweep
from neq.sweeps.storage import open_storage, patiently
from neq.sweeps.worker_pool import WorkerPool, cores
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

# In the line of every run whose loss is no longer finite.
_DIVERGED = "try a lower base_lr"
FAILURES = 5
Follow = Callable[[CellQueue, SweepUpdate], None]


@dataclass(frozen=True)
class Measured:
    """The runs of one network.

    Args:
        val_top1, test_top1: means over seeds, in %.
        runs: their folders.
    """

    val_top1: float
    test_top1: float
    runs: tuple[str, ...]


@dataclass(frozen=True)
class TrialRuns:
    """Trains networks on the sweep engine.

    Args:
        config_file: that the runs start from, by name or path.
        settings: that win over it, by key; without a network.
        seeds: of the runs of each network.
        runs: folder of all runs.
        sweeps: folder of the sweep files.
        storage, workers: as of `neq sweep`.
        follow: called with the progress twice a second.
    """

    config_file: str
    settings: Mapping[str, object]
    seeds: Sequence[int]
    runs: Path
    sweeps: Path
    storage: str | None = None
    workers: int | None = 1
    follow: Follow = lambda queue, update: None

    def __call__(self, name: str, models: Sequence[Path]) -> dict[Path, Measured]:
        """The results of networks; those with a run that diverged are left out.

        Args:
            name: of the sweep and its file.
            models: their files, each once.

        Raises:
            UserError: a run failed otherwise; the others are kept.
        """
        file = self.sweeps / f"{name}.yaml"
        write_text(file, self._sweep_text(name, models))
        sweep, cells = read_cells(file)
        experiment = sweep.experiment()
        diverged: set[int] = set()
        if any(experiment.find(cell.config, self.runs).state != "done" for cell in cells):
            diverged = self._train(sweep, experiment, file)
        found: dict[Path, list[Path]] = {}
        for cell in cells:
            place = experiment.find(cell.config, self.runs)
            if place.state == "done":
                model = Path(str(cell.values["net_name"]).removeprefix("branched:"))
                found.setdefault(model, []).append(place.folder)
            elif cell.number not in diverged:
                raise UserError(
                    f"the run of cell {cell.number} of {file} is gone, though the sweep has it as done; put "
                    "the run back, or move the database of sweeps away to train it again"
                )
        return {model: _mean(runs) for model, runs in found.items() if len(runs) == len(self.seeds)}

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
            pool = WorkerPool(queue, experiment, self.storage, self.runs, slots, FAILURES + (queue.size or 0))
            try:
                for update in run_sweep(queue, pool, self.workers):
                    self.follow(queue, update)
            finally:
                pool.stop()
        left = [state for state in update.states if state.state != "done" and not _diverged(state)]
        if left:
            raise UserError(
                f"{len(left)} of the {len(update.states)} runs of {file} are not done "
                f"({left[0].reason or 'every worker has stopped'}); mend what fails, then run the same "
                "command again"
            )
        return {state.cell for state in update.states if _diverged(state)}

    def _sweep_text(self, name: str, models: Sequence[Path]) -> str:
        command = ["python3", "${program}", "--config-file", self.config_file, "${args}"]
        nets = [f"branched:{model}" for model in models]
        return "\n".join(
            [
                "# Runs of neq partition search; neq sweep and neq results read this file too.",
                "program: train_classification.py",
                f"name: {name}",
                "method: grid",
                "metric: {name: valid.val/best, goal: maximize}",
                f"command: {flow_value(command)}",
                "parameters:",
                *(f"  {key}: {{value: {flow_value(value)}}}" for key, value in sorted(self.settings.items())),
                f"  manual_seed: {{values: {flow_value(list(self.seeds))}}}",
                f"  net_name: {{values: {flow_value(nets)}}}",
                "",
            ]
        )


def _diverged(state: CellState) -> bool:
    return state.state == "failed" and _DIVERGED in state.reason


def _mean(folders: Sequence[Path]) -> Measured:
    summaries = [read_summary(folder) for folder in folders]
    val_top1, test_top1 = (mean(summary[name] for summary in summaries) for name in ("val_top1", "test_top1"))
    return Measured(val_top1, test_top1, tuple(map(str, folders)))
