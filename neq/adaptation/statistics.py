"""AdaBN: batch norms on the statistics of the target domain; nothing is trained.

Each norm gets mean and variance of its inputs over all target images, in one pass in which norms use the
statistics of their batch:

    m = mean x,    v = mean x^2 - m^2

so that within a batch of (1, 3) the values become -+1 / sqrt(1 + eps). torch's running variance would be
n / (n - 1) times as large, and its mean over batches would leave out how the means of batches differ.

Source: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from neq.backward import on_batch_statistics
from neq.backward.batch_norms import batch_norms
from neq.utils.eval_mode import eval_mode


@torch.no_grad()
def adapt_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replaces the running statistics of a network's batch norms, in place.

    Args:
        network: left in the mode it was in.
        batches: images of the target, [B, 3, H, W], B above 1.
    """
    norms = batch_norms(network)
    sums = {norm: _Sums() for norm in norms}
    hooks = [norm.register_forward_pre_hook(sums[norm].add) for norm in norms]
    try:
        with eval_mode(network), on_batch_statistics(network):
            for images in batches:
                network(images)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, found in sums.items():
        mean, variance = found.result()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


class _Sums:
    """The sums over images and positions of a norm's inputs, of their squares, and how many they are."""

    def __init__(self) -> None:
        self._x = self._squares = torch.zeros(())
        self._count = 0

    def add(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward pre-hook that adds a batch."""
        x: Tensor = inputs[0].double()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        self._x = self._x + x.sum(axes)
        self._squares = self._squares + x.square().sum(axes)
        self._count += x.numel() // x.shape[1]

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and variance [C]."""
        mean = self._x / self._count
        return mean, (self._squares / self._count - mean.square()).clamp_min(0)
