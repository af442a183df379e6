"""Batch norm whose statistics are those of a batch that is split: over several processes, or into groups.

Shapes are given by letters: B images of this process, C channels, ... positions; n values a channel in the
whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.ghost_batch_norm import GhostBatches

# Running mean and variance (updated in place), momentum and eps of a norm.
RunningStats = tuple[Tensor | None, Tensor | None, float, float]


@dataclass(frozen=True)
class SyncBatchStats:
    """Exchange of batch statistics between the processes that split each batch.

    Args:
        sum: returns the sum of a float64 tensor over all processes; all of them call it in the same order.
        share: of the batch's images that this process has, above 0; the shares add up to 1.
    """

    sum: Callable[[Tensor], Tensor]
    share: float

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, weighted by their shares, float64."""
        return self.sum(values.double() * self.share)


# What the statistics of a norm are over, if not a whole batch in this process.
BatchSplit = SyncBatchStats | GhostBatches


def batch_norm(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, running: RunningStats, batch: BatchSplit | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm on batch statistics: the result, the mean [C], and the inverse deviation [C].

        out = gamma_C r_C (x_BC... - m_C) + beta_C,    r_C = 1 / sqrt(v_C + eps)

    Over processes p with shares w_p of the batch, m = sum_p w_p m_p and v = sum_p w_p (v_p + m_p^2) - m^2.
    The running variance is updated with v n / (n - 1).

    Args:
        x: [B, C, ...], more than one value a channel.
        gamma, beta: [C].
        running: the norm's running statistics.
        batch: the batch of all processes, or groups of x, for which mean and inverse deviation are [G, C];
            None: x is all of it.

    Source: the forward pass of SyncBatchNorm (Peng et al. 2018, MegDet, section 4.2), with sums in float64.
    """
    running_mean, running_var, momentum, eps = running
    if isinstance(batch, GhostBatches):
        return batch.norm(x, gamma, beta, running)
    if batch is None:
        found: tuple[Tensor, Tensor, Tensor] = torch.native_batch_norm(
            x, gamma, beta, running_mean, running_var, True, momentum, eps
        )
        return found
    # Not var_mean, which takes 20 times as long on channels_last.
    precise = torch.promote_types(x.dtype, torch.float32)
    zeros = x.new_zeros(x.shape[1], dtype=precise)  # whose type is that of both results
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
    batch: BatchSplit | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, gamma and beta in `batch_norm`, for a loss that is a mean over this process' share.

    With g = dL/dout of this process, xn = r (x - m) and L the loss of this process,

        dL/dbeta = sum over B, ... of g,    dL/dgamma = sum over B, ... of g xn,
        dL/dx = gamma r (g - a - xn b),

    where a and b are the means of g and g xn over all n values of a channel, for gradients that are averaged
    over the processes by their shares w_p: a = (sum_p w_p sum g) / (w n), b likewise, with this process' w.

    Args:
        grad: g, in the layout of x.
        x, gamma, mean, invstd: arguments and results of `batch_norm`.
        eps: of the norm.
        batch: as in `batch_norm`.
    """
    if isinstance(batch, GhostBatches):
        return batch.norm_backward(grad, x, gamma, mean, invstd, eps)
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
    # In the statistics' precision until the means are subtracted, and in one map.
    grad_x = (x - mean.view(shape)).mul_((-of_var * invstd).view(shape)).sub_(of_mean.view(shape)).add_(grad)
    return grad_x.mul_((invstd * gamma).view(shape)).to(x.dtype), grad_gamma, grad_beta


class SplitBatchNormFunction(Function):
    """Batch norm that follows no convolution, over a batch of several processes or over groups of images."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        running: RunningStats,
        batch: BatchSplit,
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
