"""Activations that a fused function applies in place, and what their backward needs to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neq.selective.bits import pack, unpack


@dataclass(frozen=True)
class Activation:
    """ReLU, or a ReLU cut off above: clamps to 0 .. upper.

    Args:
        upper: 6 for ReLU6, infinity for ReLU.
    """

    upper: float

    def apply_(self, y: Tensor) -> Tensor:
        """Applies itself in place."""
        return y.relu_() if self.upper == math.inf else y.clamp_(0, self.upper)

    def mask(self, out: Tensor) -> Tensor:
        """Where the gradient passes, a bit an element, from the result."""
        passes = out > 0
        return pack(passes if self.upper == math.inf else passes.logical_and_(out < self.upper))

    def masked(self, grad_output: Tensor, bits: Tensor, layout: torch.memory_format) -> Tensor:
        """The gradient of the input, from what `mask` gave.

        Args:
            grad_output: of the result.
            bits: the mask.
            layout: of the result.
        """
        return grad_output * unpack(bits, grad_output.shape, layout)

    def backward(self, grad_output: Tensor, kept: Tensor) -> Tensor:
        """The gradient of the input, from the result or the value that was clamped.

        Args:
            grad_output: of the result.
            kept: the result, or the value before.
        """
        if self.upper == math.inf:
            return torch.ops.aten.threshold_backward(grad_output, kept, 0)
        return torch.ops.aten.hardtanh_backward(grad_output, kept, 0, self.upper)


RELU, RELU6 = Activation(math.inf), Activation(6.0)


def activation_of(module: nn.Module) -> Activation | None:
    """The activation that a module is, if it can be fused."""
    if "forward" in vars(module):
        return None
    if type(module) is nn.ReLU:
        return RELU
    if type(module) is nn.ReLU6 or (
        type(module) is nn.Hardtanh and module.min_val == 0 and module.max_val > 0
    ):
        return Activation(float(module.max_val))
    return None


FUNCTIONS = {F.relu: RELU, torch.relu: RELU, F.relu6: RELU6}
METHODS = {"relu": RELU, "relu_": RELU}
