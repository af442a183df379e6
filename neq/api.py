"""Runs from Python: `neq.train` and `neq.load_run`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from neq.config import Config, find_config, read_yaml, resolve, to_mapping
from neq.config.flags import DEFAULT_CONFIG
from neq.experiment.run import RUNS, run_training
from neq.results.best_network import BestNetwork, load_best
from neq.runs import read_metrics, read_summary
from neq.training import Tracker
from neq.utils.errors import UserError

_log = logging.getLogger("neq")


@dataclass(frozen=True)
class Run:
    """A run by its folder; everything is read from there when it is asked for.

    Args:
        folder: of the run.
    """

    folder: Path

    @property
    def config(self) -> Config:
        """The complete configuration.

        Raises:
            UserError: config.yaml is missing or damaged.
        """
        return resolve(read_yaml(self.folder / "config.yaml"), {}).config

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row per finished epoch, as in metrics.jsonl.

        Raises:
            UserError: a row is damaged.
        """
        return read_metrics(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether the run has its summary."""
        return (self.folder / "summary.json").is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """Results and costs, as in summary.json.

        Raises:
            UserError: the run is unfinished, or its summary is damaged.
        """
        if not self.is_finished:
            raise UserError(
                f"{self.folder} holds an unfinished run; neq.train(..., resume=True) continues it"
            )
        return read_summary(self.folder)

    def best(self) -> BestNetwork:
        """The network after the best epoch by validation, with its classes and its image transform.

        Raises:
            UserError: no epoch has finished, or a file is damaged.
        """
        return load_best(self.folder)

    def network(self) -> nn.Module:
        """The network after the best epoch by validation: the plain module in eval mode on the CPU.

        It maps images [B, 3, S, S], normalized, to outputs [B, classes].

        Raises:
            UserError: no epoch has finished, or a file is damaged.
        """
        return self.best().network


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Opens the folder of a run, finished or not.

    Raises:
        UserError: the folder holds no run.
    """
    path = Path(folder).expanduser()
    if not (path / "identity.json").is_file() or not (path / "config.yaml").is_file():
        raise UserError(f"{path} holds no run; give the folder of one, with its config.yaml")
    return Run(path)


def train(
    config: str | os.PathLike[str] | Mapping[str, object] | Config | None = None,
    *,
    runs: str | os.PathLike[str] = RUNS,
    overwrite: bool = False,
    trackers: Sequence[Tracker] = (),
    notes: Callable[[str], None] = _log.info,
    **settings: object,
) -> Run:
    """Trains a run, as `neq train` does, without its console and its signal handlers.

    A run that is finished already is returned as it is; `resume=True` continues an unfinished one.

        run = neq.train(net_name="mbv2", dataset="digits", n_epochs=2, ratio=0.1)
        run.summary["test_top1"], run.network()

    Args:
        config: what to start from: the name of a shipped configuration, the path of a YAML file, a mapping as
            such a file holds, or a resolved configuration. None is the default run of `neq train`.
        runs: folder of all runs; the setting `run_dir` names the folder of this one instead.
        overwrite: whether to train again in a folder that holds a run.
        trackers: called with every step, every epoch and the summary.
        notes: called with each line for the user; by default they are logged as "neq", level INFO.
        settings: win over `config`; names as of the flags (`neq train --help`), values as in a YAML file.

    Returns:
        The run.

    Raises:
        UserError: a mistake in the configuration, or a run folder that cannot be used; nothing is written.
        TrainingDiverged: the loss is not finite; the last checkpoint is kept.
        OutOfMemory: memory ran out; the last checkpoint is kept.
    """
    resolved = resolve(_file_values(config), {name: _plain(value) for name, value in settings.items()})
    if overwrite and resolved.config.resume:
        raise UserError("resume and overwrite contradict each other; give one of them")
    for line in resolved.notes:
        notes(line)
    folder = run_training(
        resolved.config,
        runs=Path(runs).expanduser(),
        overwrite=overwrite,
        trackers=trackers,
        notes=notes,
    )
    return Run(folder)


def _file_values(
    config: str | os.PathLike[str] | Mapping[str, object] | Config | None,
) -> Mapping[str, object]:
    """The settings to start from, nested as in a file."""
    if isinstance(config, Config):
        return to_mapping(config)
    if isinstance(config, Mapping):
        return config
    return read_yaml(find_config(DEFAULT_CONFIG if config is None else os.fspath(config)))


def _plain(value: object) -> object:
    """A value as YAML gives it: paths are text, tuples are lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value
