"""Functions of one value by a table of their results: hard-swish, hard-sigmoid, and others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.int8.description import LOWEST, Quantization, Table
from neq.int8.modules import QuantizedModule


class Int8Table(QuantizedModule):
    """The result of a function for each code, from a table.

    Args:
        table: what it computes.
        input: quantization of its input.
    """

    table: Tensor
    slopes: Tensor

    def __init__(self, table: Table, input: Quantization) -> None:
        super().__init__((input,), table.output)
        self.register_buffer("table", table.table.clone())
        self.register_buffer("slopes", table.slopes.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, centred codes [B, C, H, W]."""
        out: Tensor = _Look.apply(x, self.table, self.slopes, self.inputs[0].zero, self.output.zero)
        return out


class _Look(Function):
    """Backward multiplies by the slope at each code. Kept are the codes, as int8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, slopes: Tensor, zero: int, zero_out: int) -> Tensor:
        codes = (x + zero).to(torch.int8)
        ctx.save_for_backward(codes if ctx.needs_input_grad[0] else None, slopes)
        return _of_codes(table.to(x.dtype) - zero_out, codes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        codes, slopes = ctx.saved_tensors
        return grad * _of_codes(slopes, codes), None, None, None, None


def _of_codes(values: Tensor, codes: Tensor) -> Tensor:
    """A value for each of some codes, in their shape and layout.

    Args:
        values: [256].
        codes: int8.
    """
    out = torch.empty_like(codes, dtype=values.dtype)
    return torch.take(values, codes.long().sub_(LOWEST), out=out)
