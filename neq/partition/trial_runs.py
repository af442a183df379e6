"""The trials of a search as cells of sweeps: recorded by their runs, resumed, never trained twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neq.config.writing import flow_value
from neq.sweeps.grid_runs import Follow, GridRuns, grid_text, mean_summary


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
        run = GridRuns(self.runs, self.storage, self.workers, self.follow)
        found: dict[Path, list[Path]] = {}
        for cell, folder in run(self.sweeps / f"{name}.yaml", self._sweep_text(name, models)):
            model = Path(str(cell.values["net_name"]).removeprefix("branched:"))
            found.setdefault(model, []).append(folder)
        return {model: _mean(runs) for model, runs in found.items() if len(runs) == len(self.seeds)}

    def _sweep_text(self, name: str, models: Sequence[Path]) -> str:
        nets = [f"branched:{model}" for model in models]
        varied = [f"  net_name: {{values: {flow_value(nets)}}}"]
        comment = "Runs of neq partition search"
        return grid_text(comment, name, self.config_file, self.settings, self.seeds, varied)


def _mean(folders: Sequence[Path]) -> Measured:
    val_top1, test_top1 = mean_summary(folders, ("val_top1", "test_top1"))
    return Measured(val_top1, test_top1, tuple(map(str, folders)))
