"""Forward passes as a task calls them: of the plan in a step, of the plain network in an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from neq.backward import ImageDraws, SyncBatchStats
from neq.training.displacement import Displacement
from neq.training.profiling import SavedBytes


class NetworkForward:
    """The network, or its plan, in the run's precision.

    Args:
        network: called with what the task gives.
        precision: "fp32", or "bf16" for autocast.
        shared: how several processes share a batch; none for a process alone.
        measured: counts what the forward passes keep for backward; none: nothing is counted.
        seeds: returns the seeds of dropout for each image of a forward pass, from the number of the pass and
            how many images there are; none: dropout draws from torch's global generator.
        displacement: of what trains; none: nothing is moved.

    Attributes:
        calls: the forward passes so far.
        images: of the first one.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        precision: str,
        shared: SyncBatchStats | None = None,
        measured: SavedBytes | None = None,
        seeds: Callable[[int, int], list[int]] | None = None,
        displacement: Displacement | None = None,
    ) -> None:
        self._network = network
        self._is_bf16, self._shared, self._measured = precision == "bf16", shared, measured
        self._seeds, self._displacement = seeds, displacement
        self.calls = self.images = 0

    def __call__(self, x: Tensor) -> Tensor:
        """One forward pass."""
        counting = nullcontext() if self._measured is None else self._measured.counting()
        draws = nullcontext() if self._seeds is None else ImageDraws(self._seeds(self.calls, len(x)))
        self.calls += 1
        self.images = self.images or len(x)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._is_bf16), counting, draws:
            return self._network(x)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the whole batch; its gradient passes to this process' value as it is."""
        if self._shared is None:
            return value
        mean: Tensor = _MeanOfShares.apply(value, self._shared)
        return mean

    def displace(self, loss: Tensor, radius: float) -> None:
        """Moves what trains up the gradient of a loss, if this is a step's."""
        if self._displacement is not None:
            self._displacement.move(loss, radius)


class _MeanOfShares(Function):
    """m = sum_p share_p * value_p forward; the identity backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, shared: SyncBatchStats) -> Tensor:
        """Args: as `NetworkForward.mean`, and the shares."""
        return shared.mean(value).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
