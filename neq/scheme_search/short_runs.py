"""The short runs of schemes as cells of a sweep: recorded at once, resumed, never trained twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from neq.config import Config
from neq.config.writing import flow_value
from neq.experiment.experiment import Experiment
from neq.runs import read_summary
from neq.scheme_search.contributions import Measured
from neq.selection import StaticScheme
from neq.sweeps import Cell, Sweep, read_cells
from neq.sweeps.history import CellState
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.run_sweep import SweepUpdate, run_sweep
from neq.sweeps.storage import open_storage, patiently
from neq.sweeps.worker_pool import WorkerPool, cores
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

# In the line of every run whose loss is no longer finite: such a scheme is not chosen, and not an error.
DIVERGED = "try a lower base_lr"
FAILURES = 5
Follow = Callable[[CellQueue, SweepUpdate], None]


@dataclass(frozen=True)
class ShortRuns:
    """Trains schemes on the sweep engine.

    A run is an SU run with a budget that admits everything, so that searches under any budget share it.

    Args:
        config_file: that the runs start from, by name or path.
        settings: that win over it, by key; neither policy nor budget.
        seeds: of the runs of each scheme.
        runs: folder of all runs.
        sweeps: path of the sweep files, to which `_NAME.yaml` is added.
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

    def __call__(self, name: str, schemes: Sequence[StaticScheme]) -> dict[StaticScheme, Measured]:
        """The results of schemes; those with a run that diverged are left out.

        Args:
            name: of the sweep, in the name of its file.
            schemes: each once.

        Raises:
            UserError: a run failed otherwise; the others are kept.
        """
        file = self.sweeps.with_name(f"{self.sweeps.name}_{name}.yaml")
        write_text(file, self._sweep_text(name, schemes))
        sweep, cells = read_cells(file)
        experiment = sweep.experiment()
        diverged: set[int] = set()
        if any(experiment.find(cell.config, self.runs).state != "done" for cell in cells):
            diverged = self._train(sweep, experiment, file)
        found: dict[StaticScheme, list[Path]] = {}
        for cell in cells:
            place = experiment.find(cell.config, self.runs)
            if place.state == "done":
                found.setdefault(_scheme(cell), []).append(place.folder)
            elif cell.number not in diverged:
                raise UserError(
                    f"the run of cell {cell.number} of {file} is gone, though the sweep has it as done; put "
                    "the run back, or move the database of sweeps away to train it again"
                )
        return {scheme: _mean(runs) for scheme, runs in found.items() if len(runs) == len(self.seeds)}

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
            # Schemes that diverge stop no worker.
            pool = WorkerPool(queue, experiment, self.storage, self.runs, slots, FAILURES + (queue.size or 0))
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

    def _sweep_text(self, name: str, schemes: Sequence[StaticScheme]) -> str:
        policy = {"neuron_selection": "SU", "initialization": "SU", "scheme": None}
        fixed = {**self.settings, **policy, "ratio": 1.0, "budget_unit": "parameters"}
        command = ["python3", "${program}", "--config-file", self.config_file, "${args}"]
        return "\n".join(
            [
                f"# The runs of neq scheme-search ({name}); neq sweep and neq results read this file too.",
                "program: train_classification.py",
                f"name: scheme-search-{name}",
                "method: grid",
                "metric: {name: valid.val/best, goal: maximize}",
                f"command: {flow_value(command)}",
                "parameters:",
                *(f"  {key}: {{value: {flow_value(value)}}}" for key, value in sorted(fixed.items())),
                f"  manual_seed: {{values: {flow_value(list(self.seeds))}}}",
                "  backward_config:",
                "    values:",
                *(f"      - {flow_value(lists(scheme))}" for scheme in schemes),
                "",
            ]
        )


def lists(scheme: StaticScheme) -> dict[str, object]:
    """The lists of a scheme under the names of the configuration."""
    return {
        "n_bias_update": scheme.n_bias_update,
        "manual_weight_idx": list(scheme.indices),
        "weight_update_ratio": list(scheme.ratios),
    }


def _scheme(cell: Cell) -> StaticScheme:
    config: Config = cell.config
    found = StaticScheme.of_config(config.backward_config)
    assert found is not None, "every cell has lists"
    return found


def _diverged(state: CellState) -> bool:
    return state.state == "failed" and DIVERGED in state.reason


def _mean(folders: Sequence[Path]) -> Measured:
    summaries = [read_summary(folder) for folder in folders]
    names = ("val_top1", "val_loss", "test_top1")
    val_top1, val_loss, test_top1 = (mean(summary[name] for summary in summaries) for name in names)
    return Measured(val_top1, val_loss, test_top1, tuple(map(str, folders)))
