"""Batch norms in a plan: on running statistics, on those of a batch, or on those of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neq.backward.module_views import shadow
from neq.backward.segments import statistics_kept
from neq.backward.sync_batch_norm import BatchSplit, RunningStats, SplitBatchNormFunction
from neq.networks.library_layers import torch_class


@dataclass(frozen=True)
class FrozenNorm:
    """A batch norm on running statistics: a scale and a shift per channel.

    Args:
        module: the plain network's.
        bias: the leaf of its bias; None: that does not train.
    """

    module: _BatchNorm
    bias: Tensor | None

    def scale_and_shift(self, bias_before: Tensor | None) -> tuple[Tensor, Tensor]:
        """s and t [C] of the norm as a map y -> s y + t, for an input without its bias b [C].

        s = gamma / sqrt(var + eps),    t = s (b - mean) + beta
        """
        module = self.module
        var, mean = module.running_var, module.running_mean
        assert isinstance(var, Tensor)
        assert isinstance(mean, Tensor)
        weight: Tensor | None = module.weight
        scale = torch.rsqrt(var + module.eps)
        if weight is not None:
            scale = scale * weight.detach()
        shift = (-mean if bias_before is None else bias_before - mean) * scale
        bias: Tensor | None = module.bias
        if bias is None:
            return scale, shift
        return scale, shift + (bias.detach() if self.bias is None else self.bias)


@dataclass(frozen=True)
class BatchStatsNorm:
    """A batch norm on batch statistics.

    Args:
        module: the plain network's, whose running statistics are updated.
        affine: its shadow, whose weight and bias are leaves where they train.
        batch: the batch of all processes, or groups of images; None: inputs are all of it.
    """

    module: _BatchNorm
    affine: nn.Module
    batch: BatchSplit | None

    def running(self) -> RunningStats:
        """What the norm updates, and how; counts the batch, as torch does."""
        norm = self.module
        return norm.running_mean, norm.running_var, _momentum(norm), norm.eps


def frozen_batch_norm(norm: FrozenNorm) -> nn.Module:
    """The stand-in of a batch norm on running statistics that follows no convolution: it saves nothing."""
    made = shadow(norm.module)
    made.training = False

    def forward(input: Tensor) -> Tensor:
        scale, shift = norm.scale_and_shift(None)
        shape = (1, -1, *(1,) * (input.dim() - 2))
        return input * scale.view(shape).to(input.dtype) + shift.view(shape).to(input.dtype)

    made.forward = forward
    return made


def split_batch_norm(norm: BatchStatsNorm) -> nn.Module:
    """The stand-in of a batch norm that follows no convolution, over a batch that is split."""
    affine = norm.affine

    def forward(input: Tensor) -> Tensor:
        return SplitBatchNormFunction.apply(input, affine.weight, affine.bias, norm.running(), norm.batch)

    affine.forward = forward
    return affine


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms of a network that have running statistics."""
    return [
        each for each in network.modules() if isinstance(each, _BatchNorm) and each.running_var is not None
    ]


@contextmanager
def on_batch_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, the batch norms of a network in eval mode use the statistics of each batch.

    Running statistics stay as they are.
    """
    norms = batch_norms(network)
    with statistics_kept(norms):
        for norm in norms:
            norm.training = True
        try:
            yield
        finally:
            for norm in norms:
                norm.training = False


def is_plain_batch_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether a module is a batch norm that computes as torch's does, with running statistics.

    It may hold modules that it applies to its result (`neq.networks.library_layers.within`).
    """
    return (
        isinstance(module, _BatchNorm) and torch_class(module) is not None and module.running_var is not None
    )


def _momentum(norm: _BatchNorm) -> float:
    """The weight of this batch in the running statistics; counts the batch."""
    batches = norm.num_batches_tracked
    if batches is not None:
        batches.add_(1)
    if norm.momentum is not None:
        return float(norm.momentum)
    return 0.0 if batches is None else 1.0 / float(batches)
