"""Products of maps of codes, as in squeeze-and-excitation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.bitmask import times_mask
from neq.backward.output_channels import layout_of
from neq.int8.arithmetic import rescale_
from neq.int8.description import Quantization
from neq.int8.modules import QuantizedModule


class Int8Multiply(QuantizedModule):
    """The product of two maps, as codes: round(q1 q2 e) with e = s1 s2 / s."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Args: centred codes [B, C, H, W] each, or the second [B, C, 1, 1]."""
        out: Tensor = _Multiply.apply(first, second, *self.inputs, self.output)
        return out


class _Multiply(Function):
    """With the gradient g of the result where it was in range: dL/dq1 = g e q2 and dL/dq2 = g e q1, summed
    over the positions that q2 was repeated at. Kept are the factors that are read, as int8."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        of_first: Quantization,
        of_second: Quantization,
        output: Quantization,
    ) -> Tensor:
        out, scale = torch.empty_like(first), of_first.scale * of_second.scale / output.scale

        def real(piece: slice) -> Tensor:
            return first[piece].double().mul_(second[piece]).mul_(scale)

        needs_first, needs_second = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            rescale_(out, real, output, needs_first or needs_second),
            (first + of_first.zero).to(torch.int8) if needs_second else None,
            (second + of_second.zero).to(torch.int8) if needs_first else None,
        )
        ctx.layout, ctx.scale, ctx.zeros = layout_of(out), scale, (of_first.zero, of_second.zero)
        ctx.is_repeated = second.shape != first.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bits, first, second = ctx.saved_tensors
        grad, (zero_first, zero_second) = times_mask(grad, bits, ctx.layout).mul_(ctx.scale), ctx.zeros
        grad_first = grad_second = None
        if first is not None:
            grad_second = grad * first.to(grad.dtype).sub_(zero_first)
            if ctx.is_repeated:
                grad_second = grad_second.sum((2, 3), keepdim=True)
        if second is not None:
            grad_first = grad * second.to(grad.dtype).sub_(zero_second)
        return grad_first, grad_second, None, None, None
