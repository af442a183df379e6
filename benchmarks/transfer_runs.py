"""One run of the transfer benchmark, trained by neq as any other run, and what is kept of it."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from neq.config import Resolved, resolve
from neq.data.image_folder import open_image_folder
from neq.experiment.run import run_training
from neq.runs import identity, read_metrics, read_summary
from neq.training import TrainingDiverged
from neq.utils.device import pick_device

# A cell: its policy and its norm mode. `head` trains the classifier alone.
CELLS = {
    "full-train": ("full", "train"),
    "full-frozen": ("full", "frozen"),
    "su-train": ("SU", "train"),
    "su-frontier": ("SU", "frontier"),
    "su-frozen": ("SU", "frozen"),
    "random-frontier": ("random", "frontier"),
    "random-frozen": ("random", "frozen"),
    "velocity-frontier": ("velocity", "frontier"),
    "velocity-frozen": ("velocity", "frozen"),
    "head": ("head", "frozen"),
}
KEPT = ("val_top1", "val_loss", "test_top1", "best_epoch", "saved_bytes")


@dataclass(frozen=True)
class Setting:
    """What all runs of a data set share.

    Args:
        dataset: what the data set is called in the report.
        root: its folder of images.
        network: by its name in neq.
        weights: default, none, or a file.
        image_size: pixels a side.
        batch_size: images.
        epochs: of each run, without warm-up.
        scheme: the lists of SU, and the budget of random and velocity.
        device: "cpu" or "cuda".
        threads: of torch.
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


@dataclass(frozen=True)
class Task:
    """One run: its cell, learning rate and seed, and the folder that it goes to."""

    setting: Setting
    cell: str
    base_lr: float
    seed: int
    folder: Path

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What tells a run of a report from the others."""
        return self.setting.dataset, self.cell, self.base_lr, self.seed


def resolved(task: Task) -> Resolved:
    """The configuration of a run: SGD without momentum, cosine schedule, no warm-up."""
    setting, (policy, norm_mode) = task.setting, CELLS[task.cell]
    budget: dict[str, object] = {"scheme": setting.scheme}
    if policy in ("full", "head"):
        budget = {"ratio": 1.0 if policy == "full" else 0.0}
    if policy == "head":
        policy = "random"  # of nothing: its budget is 0
    overrides = {
        "dataset": "image_folder",
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
        "neuron_selection": policy,
        "initialization": "random" if policy == "velocity" else policy,
        "norm_mode": norm_mode,
        **budget,
        "manual_seed": task.seed,
        "device": setting.device,
        "run_dir": str(task.folder),
        "resume": (task.folder / "identity.json").exists(),
    }
    return resolve({}, overrides)


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
        entry["step_seconds"] = [epoch["step_seconds"] for epoch in epochs]
        classes = len(open_image_folder(task.setting.root).classes)
        # The classes' shares alone may bring the loss a little below that of guessing.
        if min(epoch["valid"]["val/loss"] for epoch in epochs) > 0.98 * math.log(classes):
            entry |= {"outcome": "diverged", "reason": f"never better than guessing among {classes} classes"}
    entry["machine"] = machine(pick_device(task.setting.device))
    shutil.rmtree(task.folder / "checkpoint", ignore_errors=True)
    return entry
