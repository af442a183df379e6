"""Runs from Python: `neq.train` and `neq.load_run`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from neq.config import Config, find_config, read_yaml, resolve, to_mapping
from neq.config.flags import default_config
from neq.experiment.run import RUNS, run_training
from neq.results.best_network import BestNetwork, load_best
from neq.results.prediction import TOP, Image, Prediction, predict
from neq.runs import StoredRun
from neq.runs import load_run as load_stored_run
from neq.training import Tracker
from neq.utils.errors import UserError

_log = logging.getLogger("neq")


@dataclass(frozen=True)
class Run(StoredRun):
    """A run by its folder, with its networks; made by `load_run` and `train`."""

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

    def predict(self, images: Image | Iterable[Image], top: int = TOP) -> list[Prediction]:
        """The most probable classes of images, by the best network, as the run evaluates it.

            for prediction in neq.load_run("fitted/photos").predict(["a.jpg", "b.jpg"]):
                print(prediction.image, prediction.classes[0], prediction.probabilities[0])

        Args:
            images: one, or several: paths of files, images of PIL, uint8 arrays [H, W, 3] or tensors
                [3, H, W], also a batch of them. A file that cannot be read has an `error` and no classes.
            top: classes of each image.

        Raises:
            UserError: no epoch has finished, a file of the run is damaged, or values that are no image.
        """
        return list(predict(self.best(), images, top))


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Opens the folder of a run, finished or not.

    Raises:
        UserError: the folder holds no run, or one in a format that is newer than this version reads.
    """
    stored = load_stored_run(Path(folder).expanduser())
    return Run(stored.folder, stored.header)


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
            such a file holds, or a resolved configuration. None is what `neq train` starts from.
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
    given = {name: _plain(value) for name, value in settings.items()}
    resolved = resolve(_file_values(default_config(given) if config is None else config), given)
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
    return load_run(folder)


def _file_values(
    config: str | os.PathLike[str] | Mapping[str, object] | Config,
) -> Mapping[str, object]:
    """The settings to start from, nested as in a file."""
    if isinstance(config, Config):
        return to_mapping(config)
    if isinstance(config, Mapping):
        return config
    return read_yaml(find_config(os.fspath(config)))


def _plain(value: object) -> object:
    """A value as YAML gives it: paths are text, tuples are lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value
