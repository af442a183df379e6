"""Autograd functions whose backward computes and stores no more than a selection needs.

Each is a convolution together with what follows it: nothing or a fixed scale and shift (`ConvAct`), or a
norm on batch statistics (`ConvNormAct`), and then nothing or an activation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.activations import Activation, Smooth
from neq.backward.geometry import Geometry
from neq.backward.input_channels import ConvColumns
from neq.backward.output_channels import ConvRows, layout_of
from neq.backward.sync_batch_norm import Running, SharedBatch, batch_norm, batch_norm_backward
from neq.utils.errors import UserError

# The part of a convolution's weight that is chosen.
Chosen = ConvRows | ConvColumns


class Source:
    """How an activation can be made again from what is kept for the layer before it.

    Args:
        y: kept for that layer's own backward anyway [B, C, H, W].
        scale, shift: of the norm between, [C]; none where y is what the activation took.
        activation: what followed.
    """

    def __init__(self, y: Tensor, scale: Tensor | None, shift: Tensor | None, activation: Activation) -> None:
        self.y, self.scale, self.shift, self.activation = y, scale, shift, activation


class _Conv:
    """What both convolution functions keep for the gradients of input and rows.

    Args:
        x: the input [B, in, H, W].
        rows: the chosen part of the weight, or all of it; none: nothing trains.
        chosen: which part; none: all of it.
        geometry: of the convolution.
        source: of x, if it has one.
        stored: type that an input is kept in; none: its own.
    """

    def __init__(
        self,
        x: Tensor,
        rows: Tensor | None,
        chosen: Chosen | None,
        geometry: Geometry,
        source: Source | None,
        stored: torch.dtype | None,
    ) -> None:
        self.x = (x.shape, layout_of(x), x.dtype)
        self.rows = None if rows is None else (rows.shape, rows.dtype)
        self.chosen = chosen
        self.geometry = geometry
        self.again = None if source is None else source.activation
        self.stored = stored

    def keep(self, x: Tensor, source: Source | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What the gradient of the rows needs of the input: the input, or what it can be made from again."""
        if source is not None:
            return source.y, source.scale, source.shift
        kept = self._read(x)
        return (kept if self.stored is None else kept.to(self.stored)), None, None

    def gradients(
        self,
        grad: Tensor,
        weight: Tensor | None,
        kept: tuple[Tensor | None, Tensor | None, Tensor | None],
        needs_x: bool,
        needs_rows: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of input and rows.

        Args:
            grad: of the convolution's output.
            weight: whole; needed for the input's gradient, and where all rows are chosen.
            kept: what `keep` gave; needed for the rows' gradient.
            needs_x, needs_rows: which to compute.
        """
        grad_x = None
        if needs_rows and self.chosen is None:
            assert weight is not None
            assert self.rows is not None
            x = self._again(*kept).to(grad.dtype)
            grad_x, grad_rows = self.geometry.gradients(grad, x, weight, needs_x)
            return grad_x, grad_rows.to(self.rows[1])
        if needs_x:
            assert weight is not None
            shape, layout, dtype = self.x
            x = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout)
            grad_x = self.geometry.input_gradient(grad, x, weight)
        if not needs_rows:
            return grad_x, None
        assert self.chosen is not None
        assert self.rows is not None
        shape, dtype = self.rows
        x = self._again(*kept).to(grad.dtype)
        return grad_x, self.chosen.gradient(grad, x, self.geometry, shape).to(dtype)

    def _read(self, x: Tensor) -> Tensor:
        """The part of the input that the rows' gradient needs."""
        return x if self.chosen is None else self.chosen.read(x)

    def _again(self, kept: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        """That part, from what was kept."""
        assert kept is not None
        if self.again is None:
            return kept
        before = self._read(kept)
        if scale is not None and shift is not None:
            if self.chosen is not None and self.chosen.inputs is not None:
                scale, shift = (vector.index_select(0, self.chosen.inputs) for vector in (scale, shift))
            return self.again.apply(_affine(before, scale, shift))
        assert isinstance(self.again, Smooth), "a clamp would change what is kept"
        return self.again.apply(before)


class ConvAct(Function):
    """act(scale * conv(x, weight) + shift), with gradients for chosen rows, shift, and, if needed, x.

    The scale is folded into the weight. For an activation that clamps, one bit an element is kept, or its
    result where the next layer keeps that anyway; for a smooth one the value before, from which the next
    layer makes its input again (`made`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        chosen: Chosen | None,
        geometry: Geometry,
        activation: Activation | None,
        output_is_kept: bool,
        source: Source | None,
        stored: torch.dtype | None,
        made: list[Source],
    ) -> Tensor:
        """Args: x [B, in, H, W]; rows, the values of `weight` at `chosen`, or all of it where chosen is none,
        given only to receive their gradient; weight [out, in / groups, kh, kw]; scale and shift [out];
        output_is_kept: the next layer keeps the result for its own backward; source: of x, if it has one;
        stored: type that an input is kept in; made: receives the source of the result, if it has one."""
        folded = _folded(weight, scale, x.dtype)
        before = geometry.forward(x, folded, None if shift is None else shift.to(x.dtype))
        out = before if activation is None else activation.apply(before)
        needs_x, needs_rows, needs_shift = (ctx.needs_input_grad[i] for i in (0, 1, 4))
        if not (needs_x or needs_rows or needs_shift):
            return out
        ctx.conv = conv = _Conv(x, rows, chosen, geometry, source, stored)
        ctx.activation = activation
        ctx.mask_layout = None
        of_activation = None
        if isinstance(activation, Smooth):
            of_activation = before
            made.append(Source(before, None, None, activation))
        elif activation is not None:
            ctx.mask_layout = None if output_is_kept else layout_of(out)
            of_activation = out if output_is_kept else activation.mask(out)
        needs_weight = needs_x or (needs_rows and chosen is None)
        kept = conv.keep(x, source) if needs_rows else (None,) * 3
        ctx.save_for_backward(weight if needs_weight else None, scale, of_activation, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale, of_activation, *kept = ctx.saved_tensors
        if ctx.mask_layout is not None:
            grad = ctx.activation.masked(grad, of_activation, ctx.mask_layout)
        elif ctx.activation is not None:
            grad = ctx.activation.backward(grad, of_activation)
        needs_x, needs_rows, needs_shift = (ctx.needs_input_grad[i] for i in (0, 1, 4))
        folded = None if weight is None else _folded(weight, scale, grad.dtype)
        grad_x, grad_rows = ctx.conv.gradients(grad, folded, kept, needs_x, needs_rows)
        if grad_rows is not None and scale is not None:
            chosen = ctx.conv.chosen
            grad_rows = (
                grad_rows * scale.view(-1, 1, 1, 1) if chosen is None else chosen.scale(grad_rows, scale)
            )
        grad_shift = grad.sum((0, 2, 3)) if needs_shift else None
        return (grad_x, grad_rows, None, None, grad_shift, *(None,) * 7)


class ConvNormAct(Function):
    """act(batch_norm(conv(x, weight))) on batch statistics, with gradients for what trains and, if needed, x.

    Kept for backward: the convolution's output alone. The activation is made again from it, here and, where
    the next convolution needs it as its input, there (`source`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        running: Running,
        batch: SharedBatch | None,
        chosen: Chosen | None,
        geometry: Geometry,
        activation: Activation | None,
        source: Source | None,
        stored: torch.dtype | None,
        made: list[Source],
    ) -> Tensor:
        """Args as for `ConvAct`, and: bias [out] of the convolution; gamma and beta [out] of the norm;
        running: of the norm; batch: that x is a share of."""
        y = geometry.forward(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        if y.numel() == y.shape[1]:
            raise UserError(
                f"batch statistics need more than 1 value per channel, got {list(y.shape)}; "
                "take larger images, more of them in a batch, or norm_mode frozen"
            )
        out, mean, invstd = batch_norm(y, gamma, beta, running, batch)
        # They are in the norm's precision; only fake tensors come in that of the map.
        mean, invstd = mean.to(gamma.dtype), invstd.to(gamma.dtype)
        if activation is not None:
            out = activation.apply(out)
        needs_x, needs_rows = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        if not any(ctx.needs_input_grad):
            return out
        ctx.conv = conv = _Conv(x, rows, chosen, geometry, source, stored)
        ctx.activation, ctx.eps, ctx.batch = activation, running[3], batch
        needs_weight = needs_x or (needs_rows and chosen is None)
        kept = conv.keep(x, source) if needs_rows else (None,) * 3
        ctx.save_for_backward(weight if needs_weight else None, y, gamma, beta, mean, invstd, *kept)
        if activation is not None:
            scale = gamma.detach() * invstd
            made.append(Source(y, scale, beta.detach() - mean * scale, activation))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, y, gamma, beta, mean, invstd, *kept = ctx.saved_tensors
        needs_x, needs_rows, _, needs_bias = ctx.needs_input_grad[:4]
        if ctx.activation is not None:
            scale = gamma * invstd
            before = _affine(y, scale, beta - mean * scale)
            grad = ctx.activation.backward(grad, before)
            del before
        grad = grad.contiguous(memory_format=layout_of(y))
        grad, grad_gamma, grad_beta = batch_norm_backward(grad, y, gamma, mean, invstd, ctx.eps, ctx.batch)
        weight = None if weight is None else weight.to(grad.dtype)
        grad_x, grad_rows = ctx.conv.gradients(grad, weight, kept, needs_x, needs_rows)
        grad_bias = grad.sum((0, 2, 3)) if needs_bias else None
        return (grad_x, grad_rows, None, grad_bias, grad_gamma, grad_beta, *(None,) * 8)


def _folded(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight with a scale of its output channels in it."""
    return (weight if scale is None else weight * scale.view(-1, 1, 1, 1)).to(dtype)


def _affine(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """scale * y + shift by channel, in the layout of y."""
    shape = (1, -1, 1, 1)
    # In the norm's own precision, then rounded: as the norm did it.
    return torch.addcmul(shift.view(shape), y.to(scale.dtype), scale.view(shape)).to(y.dtype)
