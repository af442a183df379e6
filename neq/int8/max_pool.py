"""Max pooling of codes, which is exact: scale and zero point stay what they are."""

from __future__ import annotations

from torch import Tensor

from neq.backward.max_pool import MaxPool2d
from neq.int8.description import MaxPool, Quantization
from neq.int8.modules import QuantizedModule


class Int8MaxPool(QuantizedModule):
    """The largest code in each window; kept for backward is where it lies.

    Args:
        pool: its window.
        input: quantization of its input.
    """

    def __init__(self, pool: MaxPool, input: Quantization) -> None:
        super().__init__((input,), pool.output)
        self.kernel, self.stride, self.padding = pool.kernel, pool.stride, pool.padding

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, centred codes [B, C, H, W]."""
        kernel, stride, padding = ((side, side) for side in (self.kernel, self.stride, self.padding))
        out: Tensor = MaxPool2d.apply(x, (kernel, stride, padding, (1, 1), False))
        return out
