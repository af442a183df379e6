"""Batch norm over a batch that several processes share: its statistics are those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Running mean and variance (updated in place), momentum and eps of a norm.
Running = tuple[Tensor | None, Tensor | None, float, float]


@dataclass(frozen=True)
class SharedBatch:
    """A step's batch, of which this process has a share.

    Args:
        sum: gives the sum of every process' float64 tensor; all of them call it in the same order.
        share: of the batch's images, those of this process, above 0; all of them together 1.
    """

    sum: Callable[[Tensor], Tensor]
    share: float

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes by their shares, float64."""
        return self.sum(values.double() * self.share)


def batch_norm(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, running: Running, batch: SharedBatch | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Norms by batch statistics; gives the result, the mean [C], and 1 / sqrt(variance + eps) [C].

    Args:
        x: [B, C, ...], more than one value a channel.
        gamma, beta: [C].
        running: of the norm.
        batch: that x is a share of; none: x is all of it.

    Source: the forward pass of SyncBatchNorm (Peng et al. 2018, MegDet, section 4.2), with sums in float64.
    """
    running_mean, running_var, momentum, eps = running
    if batch is None:
        found: tuple[Tensor, Tensor, Tensor] = torch.native_batch_norm(
            x, gamma, beta, running_mean, running_var, True, momentum, eps
        )
        return found
    # Not var_mean, which takes 20 times as long on channels_last.
    precise = torch.promote_types(x.dtype, torch.float32)
    zeros = x.new_zeros(x.shape[1], dtype=precise)  # in whose type it gives both
    mean, var = torch.batch_norm_update_stats(x, zeros, zeros.clone(), 0.0)
    moments = batch.mean(torch.stack([mean.double(), var.double() + mean.double() ** 2]))
    whole_mean, whole_var = moments[0], (moments[1] - moments[0] ** 2).clamp_min(0)
    if running_mean is not None and running_var is not None:
        count = x.numel() / x.shape[1] / batch.share
        running_mean.lerp_(whole_mean.to(running_mean.dtype), momentum)
        running_var.lerp_((whole_var * (count / (count - 1))).to(running_var.dtype), momentum)
    mean, var = whole_mean.to(mean.dtype), whole_var.to(mean.dtype)
    out = torch.native_batch_norm(x, gamma, beta, mean, var, False, 0.0, eps)[0]
    return out, mean, torch.rsqrt(whole_var + eps).to(mean.dtype)


def batch_norm_backward(
    grad: Tensor,
    x: Tensor,
    gamma: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    eps: float,
    batch: SharedBatch | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, gamma and beta in `batch_norm`, for a loss that is the mean over this share.

    Args:
        grad: of its result, in the layout of x.
        x, gamma, mean, invstd: its arguments and results.
        eps: of the norm.
        batch: as there.
    """
    if batch is None:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            grad, x, gamma, None, None, mean, invstd, True, eps, [True, True, True]
        )
        return found
    gamma = torch.ones_like(mean) if gamma is None else gamma
    # The CPU reads mean and variance from one pair of arguments, CUDA mean and invstd from the other.
    _, grad_gamma, grad_beta = torch.ops.aten.native_batch_norm_backward(
        grad, x, gamma, mean, invstd**-2 - eps, mean, invstd, False, eps, [False, True, True]
    )
    sums = batch.mean(torch.stack([grad_beta, grad_gamma])) / batch.share
    count = x.numel() / x.shape[1] / batch.share
    of_mean, of_var = (sums / count).to(invstd.dtype)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    # In the statistics' precision until its means are taken off, and in one map.
    grad_x = (x - mean.view(shape)).mul_((-of_var * invstd).view(shape)).sub_(of_mean.view(shape)).add_(grad)
    return grad_x.mul_((invstd * gamma).view(shape)).to(x.dtype), grad_gamma, grad_beta


class SharedBatchNorm(Function):
    """A batch norm behind something else than a convolution, over a batch that processes share."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor | None, beta: Tensor | None, running: Running, batch: SharedBatch
    ) -> Tensor:
        """Args: as `batch_norm`."""
        out, mean, invstd = batch_norm(x, gamma, beta, running, batch)
        ctx.save_for_backward(x, gamma, mean, invstd)
        ctx.eps, ctx.batch = running[3], batch
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, invstd = ctx.saved_tensors
        grad_x, grad_gamma, grad_beta = batch_norm_backward(grad, x, gamma, mean, invstd, ctx.eps, ctx.batch)
        of_affine = (None, None) if gamma is None else (grad_gamma, grad_beta)
        return grad_x, *of_affine, None, None
