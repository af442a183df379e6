"""Progress of a partially completed epoch on this rank, as a checkpoint in mid-epoch holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from neq.budget import Allocation
from neq.networks.parameter_slice import ParameterSlice
from neq.selection import PreviousValues
from neq.tasks import Counts, StepOutput, add_counts


@dataclass
class EpochState:
    """Progress of a partially completed epoch on this rank; weights and optimizer state apart.

    Args:
        choice: the neurons that the epoch updates.
        losses: of its steps, float32 [steps], on the device; 0 for a step to come.
        counts: the task's, added up over the steps.
        before: the values of all that trains before the epoch; none where no velocity is measured.
        step: the next one.
        seconds: of the steps that were timed.
        random: states of torch's global generators after the last step; none before the first.
    """

    choice: Allocation
    losses: Tensor
    counts: Counts = field(default_factory=dict)
    before: PreviousValues | None = None
    step: int = 0
    seconds: list[float] = field(default_factory=list)
    random: dict[str, Tensor] | None = None

    @classmethod
    def start(cls, choice: Allocation, steps: int, device: torch.device) -> Self:
        """The state before the first of an epoch's steps."""
        return cls(choice, losses=torch.zeros(steps, device=device))

    def add(self, output: StepOutput) -> None:
        """Adds a step that is done."""
        self.losses[self.step] = output.loss.detach()
        self.counts = add_counts(self.counts, output.counts)
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, with the generator states of this moment."""
        before = None
        if self.before is not None:
            before = {name: {**vars(part), "values": kept} for name, (part, kept) in self.before.items()}
        random = {"cpu": torch.get_rng_state()}
        if self.losses.is_cuda:
            random["cuda"] = torch.cuda.get_rng_state(self.losses.device)
        return {
            **vars(self),
            "choice": vars(self.choice),
            "counts": dict(self.counts),
            "before": before,
            "random": random,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any], device: torch.device) -> Self:
        """Rebuilds what `state` returned, on a device."""
        before = state["before"]
        if before is not None:
            before = {
                name: (ParameterSlice(kept["index"], kept["axis"]), kept["values"].to(device))
                for name, kept in before.items()
            }
        moved = {
            "losses": state["losses"].to(device),
            "counts": counts_on(state["counts"], device),
            "choice": Allocation(**state["choice"]),
            "before": before,
        }
        return cls(**{**state, **moved})

    def restore_random(self) -> None:
        """Sets torch's global generators to their states after the last step."""
        assert self.random is not None
        torch.set_rng_state(self.random["cpu"])
        if "cuda" in self.random and self.losses.is_cuda:
            torch.cuda.set_rng_state(self.random["cuda"], self.losses.device)


def counts_on(counts: Counts, device: torch.device) -> Counts:
    """Counts with their tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in counts.items()}
