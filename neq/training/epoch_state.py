"""An epoch that is under way: what its steps so far have come to, as a checkpoint in mid-epoch keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from neq.budget import Allocation
from neq.networks.parameter_slice import ParameterSlice
from neq.selection import PreviousValues


@dataclass
class EpochState:
    """What an epoch's steps so far have come to in this process; weights and optimizer state apart.

    Args:
        choice: the neurons that it updates.
        losses: of its steps, float32 [steps], on the device; 0 for a step to come.
        hits: images that were classified right, int64 [], on the device.
        before: all that it can change, as it was before it; none where no velocity is measured.
        images: that were trained on.
        step: the next one.
        seconds: of the steps that were timed.
        random: states of torch's global streams after the last step; none before the first.
    """

    choice: Allocation
    losses: Tensor
    hits: Tensor
    before: PreviousValues | None = None
    images: int = 0
    step: int = 0
    seconds: list[float] = field(default_factory=list)
    random: dict[str, Tensor] | None = None

    @classmethod
    def start(cls, choice: Allocation, steps: int, device: torch.device) -> Self:
        """An epoch of so many steps, before the first."""
        return cls(
            choice,
            losses=torch.zeros(steps, device=device),
            hits=torch.zeros((), dtype=torch.int64, device=device),
        )

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Counts a step that is done.

        Args:
            loss: of its batch, [].
            outputs: [B, classes].
            labels: int64 [B].
        """
        self.losses[self.step] = loss
        self.hits += (outputs.argmax(1) == labels).sum()
        self.images += len(labels)
        self.step += 1

    def state(self) -> dict[str, Any]:
        """As plain values and tensors, with the random states of this moment."""
        before = None
        if self.before is not None:
            before = {name: {**vars(part), "values": kept} for name, (part, kept) in self.before.items()}
        random = {"cpu": torch.get_rng_state()}
        if self.losses.is_cuda:
            random["cuda"] = torch.cuda.get_rng_state(self.losses.device)
        return {**vars(self), "choice": vars(self.choice), "before": before, "random": random}

    @classmethod
    def of_state(cls, state: dict[str, Any], device: torch.device) -> Self:
        """From what `state` gave, on a device."""
        before = state["before"]
        if before is not None:
            before = {
                name: (ParameterSlice(kept["index"], kept["axis"]), kept["values"].to(device))
                for name, kept in before.items()
            }
        on_device = {name: state[name].to(device) for name in ("losses", "hits")}
        return cls(**{**state, **on_device, "choice": Allocation(**state["choice"]), "before": before})

    def restore_random(self) -> None:
        """Sets torch's global streams to where they were after the last step."""
        assert self.random is not None
        torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random and self.losses.is_cuda:
            torch.cuda.set_rng_state(self.random["cuda"], self.losses.device)
