"""The short runs of schemes as cells of a sweep: recorded at once, resumed, never trained twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neq.config import Config
from neq.config.writing import flow_value
from neq.scheme_search.contributions import Measured
from neq.selection import StaticScheme
from neq.sweeps import Cell
from neq.sweeps.grid_runs import Follow, GridRuns, grid_text, mean_summary


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
        run = GridRuns(self.runs, self.storage, self.workers, self.follow)
        file = self.sweeps.with_name(f"{self.sweeps.name}_{name}.yaml")
        found: dict[StaticScheme, list[Path]] = {}
        for cell, folder in run(file, self._sweep_text(name, schemes)):
            found.setdefault(_scheme(cell), []).append(folder)
        return {scheme: _mean(runs) for scheme, runs in found.items() if len(runs) == len(self.seeds)}

    def _sweep_text(self, name: str, schemes: Sequence[StaticScheme]) -> str:
        policy = {"neuron_selection": "SU", "initialization": "SU", "scheme": None}
        fixed = {**self.settings, **policy, "ratio": 1.0, "budget_unit": "parameters"}
        return grid_text(
            f"The runs of neq scheme-search ({name})",
            f"scheme-search-{name}",
            self.config_file,
            fixed,
            self.seeds,
            [
                "  backward_config:",
                "    values:",
                *(f"      - {flow_value(lists(scheme))}" for scheme in schemes),
            ],
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


def _mean(folders: Sequence[Path]) -> Measured:
    val_top1, val_loss, test_top1 = mean_summary(folders, ("val_top1", "val_loss", "test_top1"))
    return Measured(val_top1, val_loss, test_top1, tuple(map(str, folders)))
