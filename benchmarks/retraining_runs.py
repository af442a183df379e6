"""One cell of the retraining benchmark: a method, planned within a limit, on a sequence of tasks."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from neq.config import Config, find_config, read_yaml, resolve
from neq.config.flags import default_config
from neq.experiment.network import open_network
from neq.experiment.run import no_notes, open_run_data, run_training
from neq.planning.configurations import NormMode, NormRule
from neq.planning.device_plan import DevicePlan
from neq.planning.limit import MemoryLimit
from neq.planning.planning import open_planner
from neq.planning.retrain import top1_on
from neq.planning.rules import Limits
from neq.planning.sequence import SHARES
from neq.results.best_network import load_best
from neq.runs import load_run, read_summary

Settings = Mapping[str, object]
ANY = 2**50  # bytes that nothing reaches
BATCH = 128
# Statistics of batches adapt norms to a shift, where frozen norms would keep those of the source.
COMMON: Settings = {
    "net_name": "resnet20",
    "split_shares": list(SHARES),
    "augmentation": "square",
    "norm_mode": "train",
    "base_batch_size": BATCH,
    "warmup_epochs": 0,
}


@dataclass(frozen=True)
class Sequence:
    """Tasks in order.

    Args:
        common: settings of all of its runs.
        source: settings of the data that the network was trained on.
        tasks: settings of each, by name.
        trains_source: the settings by which the source is trained first; none: it has weights.
    """

    common: Settings
    source: Settings
    tasks: Mapping[str, Settings]
    trains_source: Settings | None = None


# Noise, blur, weather and digital corruptions in turn, then the same again.
CORRUPTIONS = (
    *("gaussian_noise:5", "defocus_blur:5", "fog:5", "jpeg_compression:5"),
    *("impulse_noise:4", "zoom_blur:4", "brightness:5", "contrast:4"),
)


def sequences(data: Path | str) -> dict[str, Sequence]:
    """All sequences by name.

    Args:
        data: the file of CIFAR-10's photos, or the folder of the files of digits.
    """
    digits = {"image_size": 16, "mean_std": {"mean": [0.5] * 3, "std": [0.5] * 3}, "augmentation": "none"}
    return {
        "cifar10": Sequence(
            {"dataset": f"npz:{data}", "split_of": "test"},
            {},
            {corruption.replace(":", "-"): {"corruption": corruption} for corruption in CORRUPTIONS},
        ),
        "digits": Sequence(
            digits,
            {"dataset": f"npz:{data}/mnist_subset.npz"},
            {name: {"dataset": f"npz:{data}/{name}.npz"} for name in ("usps", "optdigits")},
            {"n_epochs": 8, "base_lr": 0.1, "neuron_selection": "full", "ratio": 1.0},
        ),
    }


@dataclass(frozen=True)
class Method:
    """A way to retrain.

    Args:
        settings: of its runs.
        compared: the configurations that its plan compares, as fields of `neq.planning.configurations.Space`.
        searches: whether it searches its learning rate.
    """

    settings: Settings
    compared: Mapping[str, Any] = field(default_factory=dict)
    searches: bool = True


def _of(policy: str, **settings: object) -> Settings:
    # The network's head is trained, so that no epoch is needed for the head alone.
    first = policy if policy != "auto" else "last"
    return {"neuron_selection": policy, "initialization": first, **settings}


_FULL = _of("full", ratio=1.0)
# Norms below all that trains keep their statistics, so that nothing is kept for them.
_LAST, _AUTO = (_of(policy, norm_mode="frontier") for policy in ("last", "auto"))
# The allocator is the same for all, and no baseline rounds what it keeps.
_FAST = {"memories": ("fast",)}
_EXACT = {**_FAST, "saved_precisions": ("exact",)}
_UNCUT = {**_EXACT, "segments": (1,)}


def _whole(norm_mode: NormMode) -> Mapping[str, Any]:
    return {"micro_batches": (BATCH,), "norm_rules": (NormRule(norm_mode),)}


METHODS = {
    "full": Method(_FULL, {**_UNCUT, **_whole("train")}),
    "layer freezing": Method(_LAST, {**_UNCUT, **_whole("frontier")}),
    "checkpointing": Method(_FULL, {**_EXACT, **_whole("train")}),
    "accumulation": Method(_FULL, _UNCUT),
    "checkpointing and accumulation": Method(_FULL, _EXACT),
    "selection": Method(_AUTO, {**_UNCUT, **_whole("frontier")}),
    "all": Method(_AUTO, _FAST),
    "TENT": Method(
        {"objective": "tent", "neuron_selection": "none"}, {**_UNCUT, **_whole("train")}, searches=False
    ),
}
UNTRAINED = ("source", "statistics")
REFERENCE = "full"


@dataclass(frozen=True)
class Cell:
    """A method on a sequence.

    Args:
        sequence: its name.
        data: of `sequences`.
        method: its name, or one of UNTRAINED.
        seed: of its runs.
        epochs: of each task.
        rates: learning rates, of which the first task's validation chooses.
        weights: that the network starts from, a file.
        folder: of its runs.
        planned: settings of its plan.
    """

    sequence: str
    data: str
    method: str
    seed: int
    epochs: int
    rates: tuple[float, ...]
    weights: str
    folder: Path
    planned: Settings = field(default_factory=dict)

    @property
    def tasks(self) -> Sequence:
        """Its sequence."""
        return sequences(self.data)[self.sequence]

    def settings(self, task: Settings) -> dict[str, object]:
        """The settings of a run on a task, learning rate and plan apart."""
        own = METHODS[self.method].settings if self.method in METHODS else {"objective": self.method}
        epochs = {} if "objective" in own else {"n_epochs": self.epochs, "test_per_epochs": self.epochs}
        start = {"weights": self.weights, "manual_seed": self.seed}
        # What an objective brings goes before what all runs share.
        common = COMMON if epochs else {key: COMMON[key] for key in COMMON if key not in _BROUGHT}
        return {**common, **self.tasks.common, **epochs, **own, **start, **task}


_BROUGHT = ("augmentation", "norm_mode", "warmup_epochs")


def base_of(overrides: Mapping[str, object]) -> dict[str, object]:
    """The file that runs start from."""
    return dict(read_yaml(find_config(default_config(dict(overrides)))))


def plan_of(cell: Cell, memory: int = ANY) -> DevicePlan:
    """The plan of a cell's runs; that for any limit holds the choice for each (`within`)."""
    first = next(iter(cell.tasks.tasks.values()))
    overrides = cell.settings(first) | ({"base_lr": cell.rates[0]} if METHODS[cell.method].searches else {})
    given = {"norm_mode", *(("ratio",) if "ratio" in overrides else ())}
    if "objective" in overrides:
        given.add("neuron_selection")
    compared = METHODS[cell.method].compared
    with open_planner(base_of(overrides), overrides, given, no_notes) as planner:
        return replace(planner, space=replace(planner.space, **compared)).plan(Limits(memory))


def within(plan: DevicePlan, memory: float) -> int | None:
    """The number of the row that a plan made for a limit would run; None where none fits."""
    return next((number for number in plan.order if (plan.rows[number].peak or 0) <= memory), None)


def train_source(cell: Cell) -> str:
    """Trains the network that a cell of the reference starts from; returns the file of its weights."""
    tasks = cell.tasks
    overrides = {**COMMON, **tasks.common, **tasks.source, **(tasks.trains_source or {})}
    overrides |= {"manual_seed": cell.seed, "weights": "none", "run_dir": str(cell.folder)}
    config = resolve(base_of(overrides), overrides).config
    run_training(config.model_copy(update={"resume": (cell.folder / "identity.json").exists()}))
    return str(load_run(cell.folder).best_weights.resolve())


def evaluated(cell: Cell) -> dict[str, Any]:
    """The entry of an untrained row: accuracies of the source's network on every task."""
    of = {"source": cell.tasks.source, **cell.tasks.tasks}
    after = {}
    for name, task in of.items():
        config = _config(cell, task, {})
        with open_run_data(config.data_provider, cell.seed, torch.device("cpu"), 0, 1) as data:
            network = open_network(config, len(data.classes))[0].eval()
        after[name] = top1_on(network, config, config)
    return {"after": {name: after[name] for name in cell.tasks.tasks}, "final": after}


def train_cell(cell: Cell) -> dict[str, Any]:
    """Trains a cell's runs in turn, in a process that did nothing else before; returns its entry.

    Memory is the rise of the process' most resident memory. Time is the process' CPU time, since its clock
    counts what other processes do.
    """
    shutil.rmtree(cell.folder, ignore_errors=True)  # of a process that was stopped
    cell.folder.mkdir(parents=True)
    names = list(cell.tasks.tasks)
    rates: list[float | None] = list(cell.rates) if METHODS[cell.method].searches else [None]
    used, validated, seconds = 0, {}, {}
    for rate in rates:
        run = _train(cell, names[0], rate, cell.weights)
        used = max(used, run.used)
        validated[rate], seconds[rate] = run.summary.get("val_top1"), run.seconds
    rate = max(rates, key=lambda each: validated[each] or 0.0)
    total, after, weights = seconds[rate], {}, cell.weights
    for number, name in enumerate(names):
        folder = _folder(cell, name, rate)
        if number > 0:
            run = _train(cell, name, rate, weights)
            used, total = max(used, run.used), total + run.seconds
        after[name] = read_summary(folder)["test_top1"]
        weights = str(load_run(folder).best_weights.resolve())
    final = {}
    network = load_best(_folder(cell, names[-1], rate)).network
    for name, task in {"source": cell.tasks.source, **cell.tasks.tasks}.items():
        config = _config(cell, task, {})
        final[name] = top1_on(network, config, config)
    return {
        "after": after,
        "final": final,
        "base_lr": rate,
        "rates": [[each, validated[each]] for each in rates],
        "used": used,
        "cpu_seconds": total,
        "machine": machine(torch.device("cpu")),
    }


@dataclass(frozen=True)
class _Run:
    """A trained task: the most memory that it took, its CPU time, and its summary."""

    used: int
    seconds: float
    summary: Mapping[str, Any]


def _folder(cell: Cell, name: str, rate: float | None) -> Path:
    return cell.folder / (name if rate is None else f"{name}_{rate:g}")


def _config(cell: Cell, task: Settings, more: Settings) -> Config:
    overrides = {**cell.settings(task), **cell.planned, **more}
    return resolve(base_of(overrides), overrides).config


def _train(cell: Cell, name: str, rate: float | None, weights: str) -> _Run:
    folder = _folder(cell, name, rate)
    more: dict[str, object] = {"weights": weights, "run_dir": str(folder)}
    if rate is not None:
        more["base_lr"] = rate
    limit = MemoryLimit(ANY, torch.device("cpu"))
    start = time.process_time()
    run_training(_config(cell, cell.tasks.tasks[name], more), trackers=(limit,), opened=limit.open_data)
    seconds = time.process_time() - start
    summary = read_summary(folder)
    assert math.isfinite(summary["test_top1"])
    return _Run(limit.used, seconds, summary)
