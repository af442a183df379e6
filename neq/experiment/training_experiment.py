"""Training a classifier as an experiment: what sweep files name train_classification.py.

Torch is imported by `run` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neq.config import (
    OBJECTIVES,
    POLICIES,
    Config,
    Options,
    find_config,
    parse_flags,
    read_yaml,
    register,
    register_objective,
    resolve,
)
from neq.config.keys import find_key
from neq.experiment.experiment import Notes, Report, RunFailed, RunResult
from neq.runs import RunLocation, RunRecord, SweepCell, find_run, read_metrics
from neq.runs.identity import plain_identity
from neq.runs.metrics import epoch_keys
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.experiment.run import OpenData
    from neq.training import EpochReport

# The metric of a search where the sweep file names none.
DEFAULT_METRIC = "valid.val/best"


class TrainingExperiment:
    """An experiment whose runs are those of `neq train`.

    Args:
        flags: of `neq train`, the same for every run.

    Raises:
        UserError: a flag is not allowed, or the file that --config-file names cannot be read.
    """

    preload = ("neq.experiment.run",)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that every epoch logs, the default of a search first."""
        return (DEFAULT_METRIC, *(key for key in epoch_keys() if key != DEFAULT_METRIC))

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self.options: Options = parse_flags(flags, "command")
        # Read once: runs of a sweep do not change when the file does.
        self._base = read_yaml(find_config(self.options.config_file))
        self._opened: OpenData | None = None

    @property
    def base(self) -> str:
        """The name or path of the file that runs start from."""
        return self.options.config_file

    @property
    def settings(self) -> Mapping[str, object]:
        """The flags, and the content of the file that runs start from."""
        return {"overrides": self.options.overrides, "base": self._base}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled to a worker: policies and objectives that this process registered travel along."""
        registered = {"policies": tuple(POLICIES.values()), "objectives": tuple(OBJECTIVES.values())}
        return {**vars(self), "_opened": None, **registered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The user's main module, imported here anew, may have registered them already.
        for policy in state.pop("policies"):
            if policy.name not in POLICIES:
                register(policy)
        for objective in state.pop("objectives"):
            if objective.name not in OBJECTIVES:
                register_objective(objective)
        vars(self).update(state)

    def check_parameters(self, names: Sequence[str]) -> None:
        """Refuses run_dir and resume, and names that are flags too."""
        taken = {key.flat_name for name in names if (key := find_key(name))}
        overrides = self.options.overrides
        for name in ("run_dir", "resume"):
            if name in taken or name in overrides:
                raise UserError(f"{name} is not allowed in a sweep: every cell has a folder of its own")
        for name in overrides:
            if name in taken:
                raise UserError(f"{name} stands in command and in parameters; give it once")

    def resolve(self, values: Mapping[str, object]) -> tuple[Config, tuple[str, ...]]:
        """The configuration of a run, by the precedence of flags."""
        resolved = resolve(self._base, {**self.options.overrides, **values})
        return resolved.config, resolved.notes

    def identity(self, config: Config) -> Mapping[str, object]:
        """The settings that can change the result; images that lie in files are no part of it."""
        return plain_identity(config)

    def find(self, config: Config, runs: Path) -> RunLocation:
        """The run of a configuration, whichever copy of its images it was trained on."""
        return find_run(config, runs)

    def run(
        self, config: Config, runs: Path, report: Report, notes: Notes, cell: SweepCell | None = None
    ) -> RunResult:
        """Trains the run, resumes it, or returns it as it is."""
        from neq.experiment.run import open_run_data, run_training
        from neq.training import TrainingDiverged, forget_peak_memory, stop_on_signals, total_epochs
        from neq.utils.device import pick_device

        epochs = total_epochs(config.run_config)
        report(0, epochs, {})
        found = self.find(config, runs)
        if found.state == "done":
            if cell is not None:
                RunRecord(found.folder).asked_by(cell)
            return RunResult(found.folder, _last_metrics(found.folder))
        if self._opened is None:
            self._opened = lru_cache(maxsize=4)(open_run_data)  # runs of a sweep often share their data
        forget_peak_memory(pick_device(config.device))  # that of the runs before
        reporter = _Reporter(report, epochs)
        config = config.model_copy(update={"resume": found.state == "unfinished"})
        try:
            folder = run_training(
                config,
                runs=runs,
                trackers=(reporter,),
                notes=notes,
                opened=self._opened,
                stopping=stop_on_signals,
                cell=cell,
            )
        except TrainingDiverged as error:
            raise RunFailed(str(error)) from error
        return RunResult(folder, _last_metrics(folder), reporter.stopped, _memory())


class _Reporter:
    """A tracker that reports every epoch, and ends the run where it is asked to."""

    def __init__(self, report: Report, epochs: int) -> None:
        self._report, self._epochs, self.stopped = report, epochs, False

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Steps are not reported."""

    def epoch(self, report: EpochReport) -> None:
        """Reports the epoch's metrics."""
        from neq.experiment.run import StopEarly

        if self._report(report.epoch + 1, self._epochs, by_name(report.metrics)):
            self.stopped = True
            raise StopEarly

    def finish(self, summary: dict[str, Any]) -> None:
        """The end is not reported: `run` returns it."""


def by_name(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an epoch by name, as `valid.val/best`, without those that have no finite value.

    Args:
        row: of metrics.jsonl.
    """
    found = {}
    for name in epoch_keys():
        section, _, key = name.partition(".")
        values = row.get(section)
        value = values.get(key) if isinstance(values, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            found[name] = float(value)
    return found


def _last_metrics(folder: Path) -> dict[str, float]:
    rows = read_metrics(folder)
    return by_name(rows[-1]) if rows else {}


def _memory() -> dict[str, int]:
    """The peak of this process, and of its device, in bytes."""
    import torch

    from neq.training import peak_memory
    from neq.utils.device import pick_device

    found = {"peak": peak_memory(torch.device("cpu"))[0]}
    if pick_device("auto").type == "cuda":
        free, total = torch.cuda.mem_get_info()
        found |= {"device_peak": torch.cuda.max_memory_reserved(), "device_free": free, "device_total": total}
    return found
