"""The step times that fill a budget in time: one latency model for all processes and every resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch

from neq.budget import BudgetAllocator, CostModel, Latency, amount_shown, kept_latency
from neq.config.paths import cache_folder
from neq.training.distributed.collectives import ProcessGroup


@dataclass
class StepTimes:
    """A run's latency model.

    Args:
        latency: of a checkpoint, or measured before; None: neither yet.
    """

    latency: Latency | None = None

    def get(self, measured: Callable[[], Latency], processes: ProcessGroup) -> Latency:
        """The latency model, the same in every process.

        Args:
            measured: returns one of this device; called where there is none yet, on rank 0.
            processes: that train together.
        """
        if self.latency is None:
            found = processes.of_first("latency", lambda: json.dumps(measured().state()))
            self.latency = Latency.of_state(json.loads(found))
        return self.latency


def device_latency(model: CostModel, device: torch.device, memory: str) -> Latency:
    """The latency model of a step on this device, from the cache folder if it was measured before.

    Args:
        model: of the step.
        device: that trains.
        memory: the setting of that name.
    """
    return kept_latency(model, device, cache_folder() / "latency", memory)


def step_time_line(allocator: BudgetAllocator, latency: Latency) -> str:
    """The range of a step's predicted time, in one line."""
    least, most = (amount_shown(each, "time") for each in (allocator.costs.base, allocator.total))
    return (
        f"step time: {least} with nothing chosen, {most} with everything; predicted from steps measured on "
        f"this device, all of them within {latency.error:.0%}"
    )
