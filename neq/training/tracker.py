"""Reports of a run's progress, and the protocol of those who follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Args:
        epoch: from 0; warm-up epochs count.
        metrics: nested dictionary of plain values; its key paths are their names on W&B.
        chosen: the neurons that the epoch updated, bool [N].
        velocity: velocities measured after the epoch, float64 [N]; none under other policies.
    """

    epoch: int
    metrics: dict[str, Any]
    chosen: Tensor
    velocity: Tensor | None


class Tracker(Protocol):
    """Follows a run: its record, a progress display, a mirror on W&B."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """A training step, one of `steps` in its epoch, is done."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done; called before its checkpoint is saved."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is finished; called once, with the content of summary.json."""
