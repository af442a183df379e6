"""Gradient reversal, and its strength over a run.

    forward: x -> x,    backward: g -> -lambda g,    lambda(p) = 2 / (1 + e^(-10 p)) - 1

p is the progress of the run, 0 at its start and 1 at its end. lambda scales the gradient that reaches the
features, not the loss: what follows the reversal learns at full strength from the first step on.

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17, 2016, sections 4.1 and 5.2.2.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.autograd import Function


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """x itself, whose gradient is multiplied by -strength."""
    result: Tensor = _Reversal.apply(x, strength)
    return result


def strength_at(progress: float) -> float:
    """lambda at a progress in 0 .. 1: from 0 to nearly 1."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversal(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None
