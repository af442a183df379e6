"""A hard limit on the memory that a training adds to its process, checked after every step."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from neq.budget import CostModel, StepSpec, marginal_costs
from neq.config import Config
from neq.data import Data
from neq.experiment.run import Notes, Stopping, open_run_data, run_training
from neq.experiment.time_limit import Deadline
from neq.networks.neurons import neuron_table
from neq.planning.rules import Limits
from neq.runs import load_run
from neq.training import EpochReport, Tracker, forget_peak_memory, peak_memory
from neq.utils.device import pick_device
from neq.utils.errors import UserError


class MemoryExceeded(RuntimeError):
    """A training has taken more memory than its limit.

    Args:
        used: bytes that it took at most.
        limit: bytes that it may take.
    """

    def __init__(self, used: int, limit: int) -> None:
        super().__init__(
            f"training took {used / 2**20:,.1f} MiB of the {limit / 2**20:,.1f} MiB that it may take"
        )
        self.used, self.limit = used, limit


class MemoryLimit:
    """A tracker that ends a run whose memory exceeds a limit; what its last checkpoint holds is kept.

    What counts is the rise of the process' most resident memory, or on CUDA of torch's peak allocation, since
    the data was opened: network, training state and steps, but not Python, libraries and images in memory.

    Args:
        limit: in bytes.
        device: that trains.

    Attributes:
        used: bytes at most so far.
    """

    def __init__(self, limit: int, device: torch.device) -> None:
        self._limit, self._device = limit, device
        self._start: int | None = None
        self.used = 0

    @contextmanager
    def open_data(self, *arguments: Any) -> Iterator[Data]:
        """`open_run_data`; what the process holds then, the first time, is where counting starts."""
        _load_libraries(self._device)
        with open_run_data(*arguments) as data:
            data.fill_cache()
            gc.collect()
            if self._start is None:
                forget_peak_memory(self._device)
                self._start, _ = peak_memory(self._device)
            if self._device.type == "cuda":  # torch raises where more is asked for
                _, total = torch.cuda.mem_get_info(self._device)
                share = min(1.0, (self._start + self._limit) / total)
                torch.cuda.set_per_process_memory_fraction(share, self._device)
            yield data

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Raises MemoryExceeded if the limit is."""
        self.check()

    def epoch(self, report: EpochReport) -> None:
        """The same after an evaluation."""
        self.check()

    def finish(self, summary: dict[str, Any]) -> None:
        """Does nothing."""

    def check(self) -> None:
        """Raises MemoryExceeded if the limit is; also for passes that are no steps."""
        assert self._start is not None, "the run's data were not opened by this limit"
        self.used = max(self.used, peak_memory(self._device)[0] - self._start)
        if self.used > self._limit:
            raise MemoryExceeded(self.used, self._limit)


def hold(
    config: Config, limits: Limits, trackers: Sequence[Tracker], notes: Notes, stopping: Stopping
) -> None:
    """Trains a run as its settings have it, within limits.

    Args:
        config: of the run.
        limits: its time counts from now on; a run that it ends keeps its best epoch.
        trackers, notes, stopping: as of `run_training`.

    Raises:
        UserError: it takes more memory, or no epoch ends in time.
        Others: as of `run_training`.
    """
    limit = MemoryLimit(limits.memory, pick_device(config.device))
    deadline = Deadline(limits.deadline, is_strict=True)
    try:
        folder = run_training(
            config,
            trackers=(limit, deadline, *trackers),
            notes=notes,
            opened=limit.open_data,
            stopping=stopping,
            checks=(limit.check,),
        )
    except MemoryExceeded as error:
        raise UserError(
            f"{error}; objective {config.objective!r} has no plans: give it a micro_batch_size, or all tasks "
            "more memory"
        ) from None
    if deadline.is_over and not load_run(folder).metrics:
        raise UserError(
            f"the deadline of {limits.deadline:.0f} s was over before the first epoch ended; the same "
            "command continues it for as long again, or give a longer one and another --out"
        )


def _load_libraries(device: torch.device) -> None:
    """Predicts and takes a tiny step, so that libraries which are loaded on first use do not count."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    network.to(device).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 8, 8))
    model = CostModel(network, table, StepSpec((2,), (3, 8, 8)))
    marginal_costs(model, "bytes")
    plan = model.spec.plan(network, table, {})
    images = torch.zeros(2, 3, 8, 8, device=device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.0)
    plan(images).sum().backward()
    optimizer.step()
