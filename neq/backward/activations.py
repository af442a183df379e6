"""Activations that a fused function applies, and what their backward needs to keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neq.backward.bitmask import pack_where, times_mask
from neq.networks.library_layers import timm_layer


@dataclass(frozen=True)
class Clamp:
    """ReLU, or a ReLU cut off above: min(max(y, 0), upper). The gradient passes where 0 < result < upper.

    Args:
        upper: 6 for ReLU6, infinity for ReLU.
    """

    upper: float

    def apply(self, y: Tensor) -> Tensor:
        """Applies the activation in place."""
        return y.relu_() if self.upper == math.inf else y.clamp_(0, self.upper)

    def mask(self, out: Tensor) -> Tensor:
        """Where the gradient passes, one bit an element, from the result."""
        if self.upper == math.inf:
            return pack_where(lambda piece: piece > 0, out)
        return pack_where(lambda piece: (piece > 0).logical_and_(piece < self.upper), out)

    def masked(self, grad_output: Tensor, bits: Tensor, layout: torch.memory_format) -> Tensor:
        """The gradient of the input, from what `mask` returned.

        Args:
            grad_output: of the result.
            bits: the mask.
            layout: of the result.
        """
        return times_mask(grad_output, bits, layout)

    def backward(self, grad_output: Tensor, kept: Tensor) -> Tensor:
        """The gradient of the input, from the result or the value before.

        Args:
            grad_output: of the result.
            kept: the result, or the value before.
        """
        if self.upper == math.inf:
            return torch.ops.aten.threshold_backward(grad_output, kept, 0)
        return torch.ops.aten.hardtanh_backward(grad_output, kept, 0, self.upper)


@dataclass(frozen=True)
class Smooth:
    """Hardswish, SiLU or GELU: the gradient needs the value before the activation.

    Args:
        function: of that value.
        gradient: of the result's gradient and that value.
    """

    function: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]

    def apply(self, y: Tensor) -> Tensor:
        """Applies the activation; y stays as it is."""
        return self.function(y)

    def backward(self, grad_output: Tensor, kept: Tensor) -> Tensor:
        """The gradient of the input, from the value before.

        Args:
            grad_output: of the result.
            kept: the value before.
        """
        return self.gradient(grad_output, kept)


Activation = Clamp | Smooth

RELU, RELU6 = Clamp(math.inf), Clamp(6.0)
HARDSWISH = Smooth(F.hardswish, torch.ops.aten.hardswish_backward)
SILU = Smooth(F.silu, torch.ops.aten.silu_backward)
GELU, GELU_TANH = (
    Smooth(
        partial(F.gelu, approximate=approximate),
        partial(torch.ops.aten.gelu_backward, approximate=approximate),
    )
    for approximate in ("none", "tanh")
)
# By class of timm.layers, which a later version may compute otherwise.
_LIBRARY = {"GELU": GELU, "GELUTanh": GELU_TANH}


def activation_of(module: nn.Module) -> Activation | None:
    """The activation that a module computes, if it can be fused."""
    if "forward" in vars(module):
        return None
    kinds: dict[type, Activation] = {nn.ReLU: RELU, nn.Hardswish: HARDSWISH, nn.SiLU: SILU}
    if type(module) in kinds:
        return kinds[type(module)]
    if type(module) is nn.ReLU6 or (
        type(module) is nn.Hardtanh and module.min_val == 0 and module.max_val > 0
    ):
        return Clamp(float(module.max_val))
    if type(module) is nn.GELU:
        return GELU_TANH if module.approximate == "tanh" else GELU
    return _of_library(type(module))  # type: ignore[arg-type]  # classes are hashable


@cache
def _of_library(kind: Any) -> Activation | None:
    found = next((act for name, act in _LIBRARY.items() if timm_layer(name) is kind), None)
    if found is None:
        return None
    x = torch.linspace(-4, 4, 64, device="cpu")
    return found if torch.equal(kind()(x), found.apply(x)) else None


FUNCTIONS: dict[object, Activation] = {
    **{F.relu: RELU, torch.relu: RELU, F.relu6: RELU6},
    **{F.hardswish: HARDSWISH, F.silu: SILU, F.gelu: GELU},
}
METHODS: dict[str, Activation] = {"relu": RELU, "relu_": RELU}
