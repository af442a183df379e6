"""Batch norm on the statistics of groups of images: micro-batches of any size then learn the same.

Source: Hoffer et al., "Train longer, generalize better", NeurIPS 2017 (arXiv 1705.08741), ghost batch
normalization.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GhostBatches:
    """Consecutive images of a batch in groups, each normed on its own statistics.

    Running statistics are updated by one group after another.

    Args:
        size: images of a group, 1 or more; the last one may be smaller.
    """

    size: int

    def norm(
        self,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        running: tuple[Tensor | None, Tensor | None, float, float],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Batch norm group by group: the result, and mean and inverse deviation of G groups [G, C].

        Args:
            x: [B, C, ...], more than one value a channel in each group.
            gamma, beta: [C].
            running: mean and variance, updated in place, momentum and eps.
        """
        running_mean, running_var, momentum, eps = running
        found = [
            torch.native_batch_norm(part, gamma, beta, running_mean, running_var, True, momentum, eps)
            for part in x.split(self.size)
        ]
        out, mean, invstd = zip(*found, strict=True)
        return torch.cat(out), torch.stack(mean), torch.stack(invstd)

    def norm_backward(
        self, grad: Tensor, x: Tensor, gamma: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, gamma and beta in `norm`.

        Args:
            grad: of the result, in the layout of x.
            x, gamma, mean, invstd: arguments and results of `norm`.
            eps: of the norm.
        """
        found = [
            torch.ops.aten.native_batch_norm_backward(
                *of_group[:2], gamma, None, None, *of_group[2:], True, eps, [True, True, True]
            )
            for of_group in zip(grad.split(self.size), x.split(self.size), mean, invstd, strict=True)
        ]
        grad_x, grad_gamma, grad_beta = zip(*found, strict=True)
        return torch.cat(grad_x), sum(grad_gamma), sum(grad_beta)

    def by_image(self, values: Tensor, images: int) -> Tensor:
        """Values of groups [G, C] as maps of the images [B, C, 1, 1]."""
        return values.repeat_interleave(self.size, 0)[:images, :, None, None]
