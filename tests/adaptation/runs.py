"""Adaptations of a toy network between two domains of digits, made on the spot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from neq.config import DataProvider, dataset, resolve
from neq.data import Data, open_data
from neq.networks.neurons import neuron_table
from neq.tasks import TaskInputs, task_class
from neq.training import Checkpoints, Training
from neq.training.distributed import SINGLE_PROCESS, ProcessGroup
from neq.utils.errors import UserError
from tests.toys import toy
from tests.training.runs import BASE, Diary


def domains(folder: Path, images: int = 150, labels: np.ndarray | None = None) -> tuple[str, str]:
    """Two files of digits: as they are, and others in negative.

    Args:
        folder: of the files.
        images: of the target; the source has 160.
        labels: of the target in place of its own.
    """
    digits = load_digits()
    x, y = np.round(digits.images * 255 / 16).astype(np.uint8), digits.target
    source, target = slice(0, 160), slice(160, 160 + images)
    return (
        write(folder / "source.npz", x[source], y[source]),
        write(folder / "target.npz", 255 - x[target], y[target] if labels is None else labels),
    )


def write(path: Path, x: np.ndarray, y: np.ndarray) -> str:
    """A file of images whose last fifth is the test split."""
    cut = len(x) * 4 // 5
    arrays: dict[str, Any] = {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}
    np.savez(path, **arrays)
    return str(path)


@contextmanager
def adaptation(
    folder: Path,
    method: str,
    files: tuple[str, str],
    processes: ProcessGroup = SINGLE_PROCESS,
    network: nn.Module | None = None,
    **settings: Any,
) -> Iterator[tuple[Training, Diary]]:
    """A run of a toy network, by default for two rounds."""
    settings = {
        **BASE, "neuron_selection": "full", "initialization": "full", "ratio": 1.0, "n_epochs": 2,
        "dataset": f"npz:{files[0]}", "target": "npz", "target_root": files[1],
        "objective": f"adapt_{method}",
        "velocity_images": 2, "augmentation": "none", **settings,
    }  # fmt: skip
    config = resolve({}, settings).config
    cpu = torch.device("cpu")
    with ExitStack() as closed:

        def opened(data: DataProvider) -> Data:
            share = (processes.rank, processes.count)
            return closed.enter_context(
                open_data(data, dataset(data.dataset), config.manual_seed, cpu, *share)
            )

        data = opened(config.data_provider)
        network = network or toy(config.manual_seed, torch.float32, classes=10)
        network = task_class(config.objective).prepared(network, config)
        size = config.data_provider.image_size
        assert size is not None
        task = task_class(config.objective).of_run(TaskInputs(config, data, cpu, network, opened))
        table, diary = neuron_table(network, (3, size, size)), Diary()
        checkpoints = Checkpoints(folder, writes=processes.is_first)
        yield Training(config, network, table, data, task, cpu, checkpoints, (diary,), processes), diary


def refusal(*arguments: Any, **settings: Any) -> str:
    """The error of an adaptation that cannot be opened."""
    with pytest.raises(UserError) as caught, adaptation(*arguments, **settings):
        pass
    return str(caught.value)
