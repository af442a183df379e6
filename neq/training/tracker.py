"""What a run tells about itself, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Args:
        epoch: from 0; warm-up epochs count.
        metrics: nested dictionary of plain values; its key paths are the names under which W&B shows them.
        chosen: the neurons that the epoch updated, bool [N].
        velocity: velocities measured after the epoch, float64 [N]; none under other policies.
    """

    epoch: int
    metrics: dict[str, Any]
    chosen: Tensor
    velocity: Tensor | None


class Tracker(Protocol):
    """Someone who follows a run: its own record, a progress display, a mirror elsewhere."""

    def step(self, epoch: int, step: int, steps: int) -> None:
        """One training step of `steps` is done."""

    def epoch(self, report: EpochReport) -> None:
        """One epoch is done; called before its checkpoint is saved."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is done; called once, with the content of summary.json."""
