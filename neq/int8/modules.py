"""The operations of an int8 network beside its convolutions, on centred codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.bitmask import times_mask
from neq.backward.output_channels import layout_of
from neq.int8.arithmetic import limits, rescale_
from neq.int8.description import Quantization
from neq.utils.errors import UserError


class QuantizedModule(nn.Module):
    """A module that reads and returns codes; their scales and zero points are part of its state.

    Args:
        inputs: quantization of each input.
        output: quantization of the result.
    """

    def __init__(self, inputs: tuple[Quantization, ...], output: Quantization) -> None:
        super().__init__()
        self.inputs, self.output = inputs, output

    def get_extra_state(self) -> Tensor:
        """Scale and zero point of inputs and output, float64 [n + 1, 2]."""
        values = [(each.scale, each.zero) for each in (*self.inputs, self.output)]
        return torch.tensor(values, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over what `get_extra_state` returned.

        Raises:
            UserError: values that no layer has.
        """
        try:
            *inputs, self.output = (Quantization(scale, int(zero)) for scale, zero in state.tolist())
        except (ValueError, OverflowError) as error:
            raise UserError(f"weights of an int8 layer are damaged ({error}); take another file") from None
        self.inputs = tuple(inputs)


class Int8Image(QuantizedModule):
    """The centred codes round(x / scale) of a normalized image; no gradient passes."""

    def __init__(self, output: Quantization) -> None:
        super().__init__((), output)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [B, C, H, W]."""
        return (x.detach() / self.output.scale).round_().clamp_(*limits(self.output))


class Int8Add(QuantizedModule):
    """The sum of two maps, as codes: round((q1 s1 + q2 s2) / s)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Args: centred codes [B, C, H, W] each."""
        out: Tensor = _Add.apply(first, second, *self.inputs, self.output)
        return out


class _Add(Function):
    """With the gradient g of the result where it was in range: dL/dq_k = g s_k / s."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        of_first: Quantization,
        of_second: Quantization,
        output: Quantization,
    ) -> Tensor:
        out = torch.empty_like(first)

        def real(piece: slice) -> Tensor:
            real_first = first[piece].double().mul_(of_first.scale)
            # Not add_(..., alpha): a fused multiply-add, which not every processor has, rounds otherwise.
            return real_first.add_(second[piece].double().mul_(of_second.scale)).div_(output.scale)

        ctx.save_for_backward(rescale_(out, real, output, any(ctx.needs_input_grad)))
        ctx.layout = layout_of(out)
        ctx.factors = [each.scale / output.scale for each in (of_first, of_second)]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (bits,) = ctx.saved_tensors
        grad = times_mask(grad, bits, ctx.layout)
        needed = zip(ctx.factors, ctx.needs_input_grad, strict=False)
        return (*(grad * factor if needs else None for factor, needs in needed), None, None, None)


class Int8Pool(QuantizedModule):
    """The mean over all positions, rounded half to even."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, centred codes [B, C, H, W]. Returns: [B, C, 1, 1]."""
        out: Tensor = _Pool.apply(x)
        return out


class _Pool(Function):
    """The gradient of each position is that of the mean over their number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((2, 3), keepdim=True, dtype=torch.float64).round_().to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad / (ctx.shape[2] * ctx.shape[3])).expand(ctx.shape)
