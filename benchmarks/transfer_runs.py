"""One run of the transfer benchmark, trained by neq as any other run, and what is kept of it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from neq.config import Resolved, resolve
from neq.data.image_folder import open_image_folder
from neq.data.npz import open_npz
from neq.experiment.run import run_training
from neq.runs import identity, read_metrics, read_summary
from neq.training import TrainingDiverged
from neq.utils.device import pick_device

Rate = float | str  # a learning rate, or "auto"


@dataclass(frozen=True)
class Cell:
    """One way to fine-tune.

    Args:
        overrides: settings of its runs, beside those that all runs share; without a budget or scheme of their
            own they take the scheme's.
        grid: learning rates to choose from; none: those of the report.
    """

    overrides: Mapping[str, object]
    grid: tuple[Rate, ...] | None = None


def of_policy(policy: str, norm_mode: str, first: str | None = None, **more: object) -> dict[str, object]:
    """The settings of a policy, which chooses the first epoch's neurons too unless another one does."""
    return {"neuron_selection": policy, "initialization": first or policy, "norm_mode": norm_mode, **more}


FULL_TRAIN = Cell(of_policy("full", "train", ratio=1.0))
FULL_FROZEN = Cell(of_policy("full", "frozen", ratio=1.0))
SU_FROZEN = Cell(of_policy("SU", "frozen"))
CELLS = {
    "full-train": FULL_TRAIN,
    "full-frozen": FULL_FROZEN,
    "su-train": Cell(of_policy("SU", "train")),
    "su-frontier": Cell(of_policy("SU", "frontier")),
    "su-frozen": SU_FROZEN,
    "random-frontier": Cell(of_policy("random", "frontier")),
    "random-frozen": Cell(of_policy("random", "frozen")),
    "velocity-frontier": Cell(of_policy("velocity", "frontier", "random")),
    "velocity-frozen": Cell(of_policy("velocity", "frozen", "random")),
    "head": Cell(of_policy("head", "frozen", ratio=0.0)),
}
KEPT = ("val_top1", "val_loss", "test_top1", "best_epoch", "saved_bytes")


@dataclass(frozen=True)
class Setting:
    """What all runs of a data set share.

    Args:
        dataset: what the data set is called in the report.
        root: its folder of images, or an .npz file of them.
        network: by its name in neq.
        weights: default, none, or a file.
        image_size: pixels a side.
        batch_size: images.
        epochs: of each run, without warm-up.
        scheme: the lists of SU, and the budget of random and velocity.
        device: "cpu" or "cuda".
        threads: of torch.
        cells: by name.
    """

    dataset: str
    root: str
    network: str = "pre_trained_mbv2"
    weights: str = "default"
    image_size: int = 128
    batch_size: int = 32
    epochs: int = 8
    scheme: str = "mbv2_scheme_1"
    device: str = "cpu"
    threads: int = 1
    cells: Mapping[str, Cell] = field(default_factory=lambda: CELLS)


@dataclass(frozen=True)
class Task:
    """One run: its cell, learning rate and seed, and the folder that it goes to."""

    setting: Setting
    cell: str
    base_lr: Rate
    seed: int
    folder: Path

    @property
    def key(self) -> tuple[str, str, Rate, int]:
        """What tells a run of a report from the others."""
        return self.setting.dataset, self.cell, self.base_lr, self.seed


def resolved(task: Task) -> Resolved:
    """The configuration of a run: SGD without momentum, cosine schedule, no warm-up."""
    setting, own = task.setting, task.setting.cells[task.cell].overrides
    has_budget = not {"ratio", "budget", "scheme"}.isdisjoint(own)
    budget: dict[str, object] = {} if has_budget else {"scheme": setting.scheme}
    overrides = {
        "dataset": _kind(setting.root),
        "root": setting.root,
        "image_size": setting.image_size,
        "base_batch_size": setting.batch_size,
        "net_name": setting.network,
        "weights": setting.weights,
        "n_epochs": setting.epochs,
        "warmup_epochs": 0,
        "base_lr": task.base_lr,
        "momentum": 0.0,
        "test_per_epochs": setting.epochs,
        **own,
        **budget,
        "manual_seed": task.seed,
        "device": setting.device,
        "run_dir": str(task.folder),
        "resume": (task.folder / "identity.json").exists(),
    }
    return resolve({}, overrides)


def _kind(root: str) -> str:
    return "npz" if root.endswith(".npz") else "image_folder"


def class_count(root: str) -> int:
    """The number of classes in a folder or file of images."""
    return len((open_npz if _kind(root) == "npz" else open_image_folder)(root).classes)


def weights_identity(task: Task) -> str:
    """What tells the weights that runs start from: a word, or a file's hash; UserError for a bad file."""
    return str(identity(resolved(task).config).get("weights", "default"))


def train_task(task: Task) -> dict[str, Any]:
    """Trains a run, or goes on with it, and gives its entry in the report.

    The run's folder keeps its record. Its networks are removed: a sweep wants figures. A run whose loss is no
    longer a number has diverged, and so has one that never gets better than guessing.

    Raises:
        UserError: data, weights or network that cannot be used.
    """
    torch.set_num_threads(task.setting.threads)
    entry: dict[str, Any] = dict(
        zip(("dataset", "cell", "base_lr", "seed"), task.key, strict=True), outcome="finished", reason=None
    )
    configuration = resolved(task)
    try:
        run_training(configuration.config)
    except TrainingDiverged as error:
        entry |= {"outcome": "diverged", "reason": str(error), **dict.fromkeys(KEPT), "step_seconds": []}
    else:
        summary, epochs = read_summary(task.folder), read_metrics(task.folder)
        entry |= {key: summary[key] for key in KEPT}
        if "base_lr" in summary:  # of the last search
            entry["found_lr"] = summary["base_lr"]
        entry["step_seconds"] = [epoch["step_seconds"] for epoch in epochs]
        classes = class_count(task.setting.root)
        # The classes' shares alone may bring the loss a little below that of guessing.
        if min(epoch["valid"]["val/loss"] for epoch in epochs) > 0.98 * math.log(classes):
            entry |= {"outcome": "diverged", "reason": f"never better than guessing among {classes} classes"}
    entry["machine"] = machine(pick_device(task.setting.device))
    shutil.rmtree(task.folder / "checkpoint", ignore_errors=True)
    return entry
