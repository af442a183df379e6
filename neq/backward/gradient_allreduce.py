"""Averaging the gradients of what trains over processes, in one exchange."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Trainable(Protocol):
    """A plan, or whatever else has parameters that train."""

    def parameters(self) -> Iterator[nn.Parameter]: ...


def average_gradients(trained: Trainable, share: float | None = None) -> int:
    """Averages the gradients of all that trains over all processes, between backward and optimizer step.

    Only those of the chosen channels, norms and head are exchanged, so that traffic shrinks with the budget.
    Every process needs the same selection. (A process whose loss did not reach a parameter counts as zeros.)

    Args:
        trained: on each process, such as a plan of the same network and selection.
        share: this process' weight in the mean, 0 .. 1, its share of the step's images; the shares add up to
            1. None: the same weight for each.

    Returns:
        Bytes that each process contributed to the exchange.
    """
    leaves = list(trained.parameters())
    sent = 0
    for dtype in sorted({leaf.dtype for leaf in leaves}, key=str):
        group = [leaf for leaf in leaves if leaf.dtype == dtype]
        flat = torch.cat([_gradient(leaf).reshape(-1) for leaf in group])
        flat *= 1 / dist.get_world_size() if share is None else share
        dist.all_reduce(flat)
        for leaf, mean in zip(group, flat.split([leaf.numel() for leaf in group]), strict=True):
            leaf.grad = mean.view_as(leaf).clone(memory_format=torch.preserve_format)
        sent += flat.nbytes
    return sent


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
