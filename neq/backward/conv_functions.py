"""Autograd functions whose backward computes and stores no more than a selection needs.

Each is a convolution together with what follows it: nothing or a fixed scale and shift (`ConvAct`), or a
norm on batch statistics (`ConvNormAct`), and then nothing or an activation.

Shapes are given by letters: B images, I input and O output channels, G groups, H x W and P x Q the heights
and widths of input and output, K x L of the kernel. C is the set of chosen output (or input) channels, R the
input channels that the gradient of their weights reads. `*` is the convolution over H x W.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from neq.backward.activations import Activation, Smooth
from neq.backward.geometry import Geometry
from neq.backward.ghost_batch_norm import GhostBatches
from neq.backward.input_channels import InputChannels
from neq.backward.output_channels import OutputChannels, layout_of
from neq.backward.recompute import RecomputeSpec
from neq.backward.sync_batch_norm import BatchSplit, RunningStats, batch_norm, batch_norm_backward
from neq.utils.errors import UserError

# The chosen channels of a convolution's weight.
ChosenChannels = OutputChannels | InputChannels


class _ConvBackward:
    """The gradients of a convolution's input and of the chosen slice of its weight.

    With y_BOPQ = x_BIHW * W_OIKL and the gradient g_BOPQ of y, chosen output channels C need

        dL/dx_BIHW = g_BOPQ *^T W_OIKL              (the transposed convolution; all output channels)
        dL/dW_CIKL = sum over B, P, Q of g_BCPQ x_BRHW    (shifted by K, L)

    and chosen input channels R the same with g_BOPQ and x_BRHW. So only x_BRHW is kept from forward.

    Args:
        x: the input [B, I, H, W].
        weight_slice: the chosen slice of the weight, or all of it; None: nothing of it trains.
        chosen: which channels; None: all of them.
        geometry: of the convolution.
        recompute: how to recompute x; None: x itself is kept.
        saved_dtype: type that x is kept in; None: its own.
    """

    def __init__(
        self,
        x: Tensor,
        weight_slice: Tensor | None,
        chosen: ChosenChannels | None,
        geometry: Geometry,
        recompute: RecomputeSpec | None,
        saved_dtype: torch.dtype | None,
    ) -> None:
        self.x = (x.shape, layout_of(x), x.dtype)
        self.weight_slice = None if weight_slice is None else (weight_slice.shape, weight_slice.dtype)
        self.chosen = chosen
        self.geometry = geometry
        self.compute = None if recompute is None else recompute.compute
        self.by_channel = recompute is None or recompute.by_channel
        self.saved_dtype = saved_dtype

    def keep(self, x: Tensor, recompute: RecomputeSpec | None) -> tuple[Tensor, ...]:
        """What the gradient of the weight needs of the input: x_BRHW, or what it can be recomputed from."""
        if recompute is not None:
            return recompute.kept
        kept = self._read(x)
        return (kept if self.saved_dtype is None else kept.to(self.saved_dtype),)

    def gradients(
        self,
        grad: Tensor,
        weight: Tensor | None,
        kept: Sequence[Tensor],
        needs_x: bool,
        needs_weight: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the input and of the chosen slice of the weight.

        Args:
            grad: of the convolution's output [B, O, P, Q].
            weight: whole [O, I / G, K, L]; needed for the input's gradient, and where all of it is chosen.
            kept: what `keep` returned; needed for the weight's gradient.
            needs_x, needs_weight: which to compute.
        """
        grad_x = None
        if needs_weight and self.chosen is None:
            assert weight is not None
            assert self.weight_slice is not None
            x = self._recomputed(kept).to(grad.dtype)
            grad_x, grad_weight = self.geometry.gradients(grad, x, weight, needs_x)
            return grad_x, grad_weight.to(self.weight_slice[1])
        if needs_x:
            assert weight is not None
            shape, layout, dtype = self.x
            x = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=layout)
            grad_x = self.geometry.input_gradient(grad, x, weight)
        if not needs_weight:
            return grad_x, None
        assert self.chosen is not None
        assert self.weight_slice is not None
        shape, dtype = self.weight_slice
        x = self._recomputed(kept).to(grad.dtype)
        return grad_x, self.chosen.gradient(grad, x, self.geometry, shape).to(dtype)

    def _read(self, x: Tensor) -> Tensor:
        """The part of the input that the weight's gradient needs, x_BRHW; of a vector x_I that part too."""
        if self.chosen is None or self.chosen.inputs is None:
            return x
        if x.dim() == 1:
            return x.index_select(0, self.chosen.inputs)
        return x if x.shape[1] == 1 else self.chosen.read(x)

    def _recomputed(self, kept: Sequence[Tensor]) -> Tensor:
        """x_BRHW, from what was kept."""
        if self.compute is None:
            return kept[0]
        if not self.by_channel:
            return self._read(self.compute(*kept))
        return self.compute(*map(self._read, kept))


class ConvAct(Function):
    """act(s_O (x_BIHW * W_OIKL) + t_O), with gradients for chosen channels of W, t, and, if needed, x.

    The scale s is folded into the weight. With z = s (x * W) + t and the gradient g of the result,

        dL/dz = g act'(z),    dL/dt_O = sum over B, P, Q of dL/dz,    dL/dW_CIKL = s_C (dL/d(s W))_CIKL,

    and dL/dx as for the convolution with s W. For an activation that clamps, act'(z) is kept as one bit an
    element, or as the result where the next layer keeps that anyway; for a smooth one z is kept, from which
    the next layer recomputes its input (`made`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_slice: Tensor | None,
        weight: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        chosen: ChosenChannels | None,
        geometry: Geometry,
        activation: Activation | None,
        output_is_kept: bool,
        recompute: RecomputeSpec | None,
        saved_dtype: torch.dtype | None,
        made: list[RecomputeSpec],
    ) -> Tensor:
        """Args: x [B, I, H, W]; weight_slice, the values of `weight` at `chosen`, or all of it where chosen
        is None, given only to receive their gradient; weight [O, I / G, K, L]; scale and shift [O];
        output_is_kept: the next layer keeps the result for its own backward; recompute: how to recompute x,
        if it can be; saved_dtype: type that an input is kept in; made: receives how to recompute the result,
        if it can be."""
        folded = fold(weight, scale, x.dtype)
        before = geometry.forward(x, folded, None if shift is None else shift.to(x.dtype))
        out = before if activation is None else activation.apply(before)
        needs_x, needs_slice, needs_shift = (ctx.needs_input_grad[i] for i in (0, 1, 4))
        if not (needs_x or needs_slice or needs_shift):
            return out
        ctx.conv = conv = _ConvBackward(x, weight_slice, chosen, geometry, recompute, saved_dtype)
        ctx.activation = activation
        ctx.mask_layout = None
        of_activation = None
        if isinstance(activation, Smooth):
            of_activation = before
            made.append(RecomputeSpec((before,), activation.apply))
        elif activation is not None:
            ctx.mask_layout = None if output_is_kept else layout_of(out)
            of_activation = out if output_is_kept else activation.mask(out)
        needs_weight = needs_x or (needs_slice and chosen is None)
        kept = conv.keep(x, recompute) if needs_slice else ()
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
        needs_x, needs_slice, needs_shift = (ctx.needs_input_grad[i] for i in (0, 1, 4))
        folded = None if weight is None else fold(weight, scale, grad.dtype)
        grad_x, grad_slice = ctx.conv.gradients(grad, folded, kept, needs_x, needs_slice)
        if grad_slice is not None and scale is not None:
            chosen = ctx.conv.chosen
            grad_slice = (
                grad_slice * scale.view(-1, 1, 1, 1) if chosen is None else chosen.scale(grad_slice, scale)
            )
        grad_shift = grad.sum((0, 2, 3)) if needs_shift else None
        return (grad_x, grad_slice, None, None, grad_shift, *(None,) * 7)


class ConvNormAct(Function):
    """act(batch_norm(x_BIHW * W_OIKL + b_O)) on batch statistics, with gradients for what trains and for x.

    With y = x * W + b, its mean m_O and inverse deviation r_O = 1 / sqrt(var_O + eps) over B, P, Q, the
    result is act(z) with z = gamma_O r_O (y - m_O) + beta_O. Only y, m and r are kept for backward: with
    s = gamma r and t = beta - m s, the activation's input z = s y + t is recomputed from them, here and,
    where the next convolution needs act(z) as its input, there (`made`).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_slice: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        running: RunningStats,
        batch: BatchSplit | None,
        chosen: ChosenChannels | None,
        geometry: Geometry,
        activation: Activation | None,
        recompute: RecomputeSpec | None,
        saved_dtype: torch.dtype | None,
        made: list[RecomputeSpec],
    ) -> Tensor:
        """Args as for `ConvAct`, and: bias [O] of the convolution; gamma and beta [O] of the norm; running:
        the norm's running statistics; batch: the batch of all processes, or groups of x; None: x is all of
        it."""
        y = geometry.forward(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        if y.numel() == y.shape[1]:
            raise UserError(
                f"batch statistics need more than 1 value per channel, got {list(y.shape)}; "
                "take larger images, more of them in a batch, or norm_mode frozen"
            )
        out, mean, invstd = batch_norm(y, gamma, beta, running, batch)
        if activation is not None:
            out = activation.apply(out)
        needs_x, needs_slice = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        if not any(ctx.needs_input_grad):
            return out
        ctx.conv = conv = _ConvBackward(x, weight_slice, chosen, geometry, recompute, saved_dtype)
        ctx.activation, ctx.eps, ctx.batch = activation, running[3], batch
        needs_weight = needs_x or (needs_slice and chosen is None)
        kept = conv.keep(x, recompute) if needs_slice else ()
        ctx.save_for_backward(weight if needs_weight else None, y, gamma, beta, mean, invstd, *kept)
        if activation is not None:
            scale, shift = _scale_and_shift(gamma.detach(), beta.detach(), mean, invstd, batch, len(y))
            made.append(RecomputeSpec((y, scale, shift), partial(_activated, activation)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, y, gamma, beta, mean, invstd, *kept = ctx.saved_tensors
        needs_x, needs_slice, _, needs_bias = ctx.needs_input_grad[:4]
        if ctx.activation is not None:
            before = _affine(y, *_scale_and_shift(gamma, beta, mean, invstd, ctx.batch, len(y)))
            grad = ctx.activation.backward(grad, before)
            del before
        grad = grad.contiguous(memory_format=layout_of(y))
        grad, grad_gamma, grad_beta = batch_norm_backward(grad, y, gamma, mean, invstd, ctx.eps, ctx.batch)
        weight = None if weight is None else weight.to(grad.dtype)
        grad_x, grad_slice = ctx.conv.gradients(grad, weight, kept, needs_x, needs_slice)
        grad_bias = grad.sum((0, 2, 3)) if needs_bias else None
        return (grad_x, grad_slice, None, grad_bias, grad_gamma, grad_beta, *(None,) * 8)


def fold(weight: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """s_O W_OIKL; without a scale W."""
    return (weight if scale is None else weight * scale.view(-1, 1, 1, 1)).to(dtype)


def _activated(activation: Activation, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """act(s_O y_BOPQ + t_O)."""
    return activation.apply(_affine(y, scale, shift))


def _scale_and_shift(
    gamma: Tensor, beta: Tensor, mean: Tensor, invstd: Tensor, batch: BatchSplit | None, images: int
) -> tuple[Tensor, Tensor]:
    """s and t of the norm as a map y -> s y + t: [O], or [B, O, 1, 1] where images are normed in groups."""
    scale = gamma * invstd
    shift = beta - mean * scale
    if isinstance(batch, GhostBatches):
        return batch.by_image(scale, images), batch.by_image(shift, images)
    return scale, shift


def _affine(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """s y_BOPQ + t, in the layout of y; s and t [O] or [B, O, 1, 1]."""
    scale, shift = (value if value.dim() == 4 else value.view(1, -1, 1, 1) for value in (scale, shift))
    # In the norm's own precision, then rounded: as the norm computes it.
    return torch.addcmul(shift, y.to(scale.dtype), scale).to(y.dtype)
