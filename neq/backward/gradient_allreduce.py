"""Averaging the gradients of what trains over processes, in one exchange."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from neq.backward.plan import Plan


def average_gradients(plan: Plan, share: float | None = None) -> int:
    """Averages the gradients of a plan over all processes, after backward and before the optimizer steps.

    Only those of the chosen channels, norms and head are exchanged, so that traffic shrinks with the budget.
    Every process needs the same selection. (A process whose loss did not reach a parameter counts as zeros.)

    Args:
        plan: on each process, of the same network and selection.
        share: this process' weight in the mean, 0 .. 1, its share of the step's images; the shares add up to
            1. None: the same weight for each.

    Returns:
        Bytes that each process contributed to the exchange.
    """
    leaves = list(plan.parameters())
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
