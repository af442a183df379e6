"""What a report says of its runs: the figures of each, and the table that sets them side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pandas import DataFrame
from scipy.stats import binomtest

from neq.budget import amount_shown
from neq.config import Config, data_title
from neq.results.best_network import load_best
from neq.results.evaluation import evaluation
from neq.results.report.costs import Costs, costs
from neq.results.report.quality import Quality
from neq.results.report.speed import BATCHES, Speed, VariantSpeed, speed
from neq.runs import StoredRun, load_run
from neq.runs.environment import Environment
from neq.runs.run_reader import number
from neq.utils.errors import UserError

_MIB = 2**20


@dataclass(frozen=True)
class RunReport:
    """What a report says of a run.

    Args:
        name: that tells it from the other runs of the report.
        run: as stored, or a copy of its network.
        quality: of its best network on the test split.
        costs: of its best network.
        speed: of inference; none: it was left out.
    """

    name: str
    run: StoredRun
    quality: Quality
    costs: Costs
    speed: Speed | None

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.run.config

    @property
    def title(self) -> str:
        """Its network and its images."""
        return f"{self.config.net_config.net_name} on {_images(self)}"

    @property
    def summary(self) -> dict[str, Any]:
        """What the run recorded; empty of an unfinished run and of a copy."""
        return self.run.summary if self.run.is_finished else {}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """What every epoch logged."""
        return self.run.metrics

    @property
    def environments(self) -> tuple[Environment, ...]:
        """That it was trained in."""
        return self.run.header.environments

    def variant(self, name: str | None) -> VariantSpeed | None:
        """What was measured of a variant; none where it was not."""
        variants = self.speed.variants if self.speed is not None else ()
        return next((each for each in variants if each.name == name), None)


def run_reports(
    folders: Sequence[Path], device: torch.device, with_speed: bool, notes: Callable[[str], object]
) -> list[RunReport]:
    """The reports of runs; what is kept beside a run is read, what is missing is computed and kept.

    Args:
        folders: of the runs, or of copies of their networks.
        device: that evaluates.
        with_speed: whether inference is measured.
        notes: called with a line where something takes long.

    Raises:
        UserError: a folder holds no run with a network, or its test split cannot be evaluated.
    """
    found = []
    for name, folder in zip(names(folders), folders, strict=True):
        run = load_run(folder)
        try:
            quality = Quality(evaluation(folder, device, notes))
        except UserError as error:
            raise UserError(f"{folder}: {error}" if str(folder) not in str(error) else str(error)) from None
        found.append(
            RunReport(
                name, run, quality, costs(load_best(folder)), speed(folder, notes) if with_speed else None
            )
        )
    return found


def names(folders: Sequence[Path]) -> list[str]:
    """The ends of the folders' paths, as short as tells them apart.

    Raises:
        UserError: a folder is given twice.
    """
    parts = [Path(os.path.realpath(folder)).parts for folder in folders]
    twice = next((folder for at, folder in enumerate(folders) if parts[at] in parts[:at]), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; give each run once")
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


@dataclass(frozen=True)
class Fact:
    """A row of the table that sets runs side by side.

    Args:
        section: what it belongs to.
        header: its name, with the unit.
        value: of a run; none: not known.
        digits: after the point; none: a text, or a whole number.
        higher_is_better: none: neither is.
    """

    section: str
    header: str
    value: Callable[[RunReport], float | str | None]
    digits: int | None = None
    higher_is_better: bool | None = None

    def shown(self, run: RunReport) -> str:
        """The value as a page shows it."""
        value = self.value(run)
        if value is None:
            return "–"
        if isinstance(value, str):
            return value
        return f"{value:,.0f}" if self.digits is None else f"{value:,.{self.digits}f}"


def facts(runs: Sequence[RunReport]) -> list[Fact]:
    """The rows that are known of at least one of the runs."""
    found = [*_QUALITY, *_SIZE, *_TRAINING, *_inference(runs)]
    return [fact for fact in found if any(fact.value(run) is not None for run in runs)]


def best_of(fact: Fact, runs: Sequence[RunReport]) -> set[str]:
    """The names of the runs that are best in a row; empty where it ranks nothing, or all are equal."""
    values = {run.name: value for run in runs if isinstance(value := fact.value(run), int | float)}
    if fact.higher_is_better is None or len(set(values.values())) < 2:
        return set()
    best = (max if fact.higher_is_better else min)(values.values())
    return {name for name, value in values.items() if value == best}


def table(runs: Sequence[RunReport]) -> DataFrame:
    """The facts as they are, a row a fact and a column a run."""
    rows = [
        {"": fact.section, "figure": fact.header, **{run.name: fact.value(run) for run in runs}}
        for fact in facts(runs)
    ]
    return DataFrame(rows)


def points(runs: Sequence[RunReport]) -> DataFrame:
    """Every measured variant of every run whose accuracy is known: run, variant, accuracy (%), mib, ms."""
    rows = [
        (run.name, each.name, 100 * each.accuracy, each.file_bytes / _MIB, each.milliseconds[0])
        for run in runs
        for each in (run.speed.variants if run.speed is not None else ())
        if each.accuracy is not None
    ]
    return DataFrame(rows, columns=["run", "variant", "accuracy", "mib", "ms"])


def _interval(run: RunReport) -> str:
    labels = run.quality.evaluation.labels
    hits = int((run.quality.evaluation.predicted == labels).sum())
    low, high = binomtest(hits, len(labels)).proportion_ci(method="wilson")
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _recorded(key: str, scale: float = 1) -> Callable[[RunReport], float | None]:
    def value(run: RunReport) -> float | None:
        found = number(run.summary.get(key))
        return None if found is None else found / scale

    return value


def _cluster(name: str) -> Callable[[RunReport], float | None]:
    return lambda run: None if run.quality.clusters is None else run.quality.clusters[name]


def _images(run: RunReport) -> str:
    settings = run.config.data_provider
    return data_title(settings.dataset, settings.root)


def _method(run: RunReport) -> str:
    neq, objective = run.config.NEq_config, run.config.objective
    policy = neq.neuron_selection
    return policy if objective == "classification" else f"{objective}, {policy}"


def _budget(run: RunReport) -> str | None:
    amount = number(run.summary.get("budget"))
    return None if amount is None else amount_shown(int(amount), str(run.summary.get("budget_unit")))


def _training_minutes(run: RunReport) -> float | None:
    seconds, epochs = (number(run.summary.get(key)) for key in ("step_seconds", "epochs"))
    return None if seconds is None or epochs is None else seconds * run.quality.evaluation.steps * epochs / 60


_QUALITY = (
    Fact("Quality", "test images", lambda run: len(run.quality.evaluation.labels)),
    Fact("Quality", "accuracy (%)", lambda run: 100 * run.quality.accuracy, 2, True),
    Fact("Quality", "accuracy, 95 % interval (%)", _interval),
    Fact("Quality", "accuracy as recorded in training (%)", _recorded("test_top1"), 2),
    Fact("Quality", "loss", lambda run: run.quality.loss, 4, False),
    Fact("Quality", "macro precision", lambda run: run.quality.macro["precision"], 4, True),
    Fact("Quality", "macro recall", lambda run: run.quality.macro["recall"], 4, True),
    Fact("Quality", "macro F1", lambda run: run.quality.macro["f1"], 4, True),
    Fact("Quality", "calibration error ECE (%)", lambda run: 100 * run.quality.ece, 2, False),
    Fact("Quality", "NMI of feature clusters", _cluster("nmi"), 4, True),
    Fact("Quality", "RI of feature clusters", _cluster("ri"), 4, True),
    Fact("Quality", "ARI of feature clusters", _cluster("ari"), 4, True),
)
_SIZE = (
    Fact("Size", "parameters", lambda run: run.costs.parameters, None, False),
    Fact("Size", "MACs an image (millions)", lambda run: run.costs.macs / 1e6, 2, False),
    Fact("Size", "file of weights (MiB)", lambda run: run.costs.file_bytes / _MIB, 2, False),
    Fact(
        "Size", "memory of inference, batch 1 (MiB)", lambda run: run.costs.inference_bytes / _MIB, 2, False
    ),
)
_TRAINING = (
    Fact("Training", "network", lambda run: run.config.net_config.net_name),
    Fact("Training", "images", _images),
    Fact("Training", "image size (px)", lambda run: run.config.data_provider.image_size),
    Fact("Training", "method", _method),
    Fact("Training", "budget", _budget),
    Fact("Training", "epochs", _recorded("epochs")),
    Fact("Training", "best epoch, from 0", _recorded("best_epoch")),
    Fact("Training", "parameters updated in an epoch, at most", _recorded("selected_parameters_max")),
    Fact("Training", "step (ms)", _recorded("step_seconds", 1e-3), 1, False),
    Fact("Training", "all steps (min)", _training_minutes, 1, False),
    Fact("Training", "kept for backward (MiB)", _recorded("saved_bytes", _MIB), 1, False),
    Fact("Training", "peak memory (MiB)", _recorded("peak_memory_bytes", _MIB), 1, False),
)


# Variants that have a row; `int8` is the chosen one.
_RUNTIMES = (
    *("torch fp32", "torch bf16", "torch"),
    *("onnxruntime", "onnxruntime fp32", "onnxruntime fp16", "int8"),
)


def _inference(runs: Sequence[RunReport]) -> list[Fact]:
    """Images a second of each variant that was measured of a run; of int8 the one that is chosen."""

    def value(name: str, at: int) -> Callable[[RunReport], float | None]:
        def fps(run: RunReport) -> float | None:
            wanted = run.speed.int8 if name == "int8" and run.speed is not None else name
            found = run.variant(wanted)
            return None if found is None else found.fps[at]

        return fps

    return [
        Fact("Inference, images a second", f"{name}, batch {size}", value(name, at), 1, True)
        for name in _RUNTIMES
        for at, size in enumerate(BATCHES)
    ]
