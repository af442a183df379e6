"""Whole runs of a toy network on the digits, a fraction of a second an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neq.config import dataset, resolve
from neq.data import Data, open_data
from neq.networks.neurons import neuron_table
from neq.tasks import Task, TaskInputs, task_of_run
from neq.training import Checkpoints, EpochReport, Stopped, Training, restore, train
from neq.training.distributed import SINGLE_PROCESS, ProcessGroup
from tests.toys import toy

BASE = {
    "image_size": 12,
    "n_epochs": 3,
    "warmup_epochs": 0,
    "base_lr": 0.05,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "ratio": 0.3,
    "initialization": "random",
}
TIMES = ("step_seconds", "peak_memory_bytes")
LISTS = {"manual_weight_idx": [0, 2, 3], "weight_update_ratio": [0.5, 0.125, 0.25], "n_bias_update": 2}


class Diary:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []
        self.steps: list[tuple[int, int, int]] = []
        self.summary: dict[str, Any] | None = None

    def step(self, epoch: int, step: int, steps: int) -> None:
        self.steps.append((epoch, step, steps))

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)

    def finish(self, summary: dict[str, Any]) -> None:
        self.summary = summary


def without_times(value: Any) -> Any:
    """A summary or metrics without what differs between two equal runs."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return value


def stopped_and_resumed(
    opened: Callable[[], AbstractContextManager[tuple[Training, Diary]]], stop: tuple[int, int] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]], Training]:
    """Trains a run, stopped after a step and resumed where one is named.

    Args:
        opened: opens the run in its folder.
        stop: the epoch and the number of the step.

    Returns:
        Summary and metrics of all epochs, without times, and the run that ended.
    """
    metrics = []
    for at in (None,) if stop is None else (stop, None):
        with opened() as (run, diary):

            def step(epoch: int, number: int, steps: int, run: Training = run, at: Any = at) -> None:
                run.stop.number = 15 if (epoch, number) == at else 0

            diary.step = step  # type: ignore[method-assign, assignment]
            progress = restore(run, run.checkpoints.load_last())
            torch.manual_seed(7)  # whatever a new process begins with
            if at is None:
                summary = without_times(train(run, progress))
            else:
                with pytest.raises(Stopped):
                    train(run, progress)
            metrics += [without_times(report.metrics) for report in diary.reports]
    return summary, metrics, run


class Interrupted(Exception):
    """What ends a run in `train_until`."""


def train_until(run: Training, diary: Diary, stop: int) -> None:
    """Trains a run until it reports an epoch; the report is lost, as the epoch's checkpoint is."""
    real = diary.epoch

    def epoch(report: EpochReport) -> None:
        if report.epoch == stop:
            raise Interrupted
        real(report)

    diary.epoch = epoch  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        train(run)


@contextmanager
def run_of(
    folder: Path,
    processes: ProcessGroup = SINGLE_PROCESS,
    network: nn.Module | None = None,
    learned: Callable[[Data, torch.device], Task[Any]] | None = None,
    **settings: Any,
) -> Iterator[tuple[Training, Diary]]:
    """A run of a network and a task, by default the toy and that of the objective, and its diary."""
    if settings.get("budget") is not None:
        settings.setdefault("ratio", None)
    config = resolve({}, {**BASE, **settings}).config
    diary = Diary()
    share, cpu = (processes.rank, processes.count), torch.device("cpu")
    with open_data(config.data_provider, dataset("digits"), config.manual_seed, cpu, *share) as data:
        if network is None:
            network = toy(config.manual_seed, torch.float32, classes=10)
        size = config.data_provider.image_size
        assert size is not None
        table = neuron_table(network, (3, size, size))
        checkpoints = Checkpoints(folder, writes=processes.is_first)
        if learned is None:
            inputs = TaskInputs(config, data, cpu, network, lambda settings: data)
            task = task_of_run(inputs)
        else:
            task = learned(data, cpu)
        yield Training(config, network, table, data, task, cpu, checkpoints, (diary,), processes), diary
