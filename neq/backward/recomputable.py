"""Stand-ins of norms and activations whose results can be recomputed from what their own backward saves.

They compute as the network's own modules do and save the same. But what they save, their input, serves the
next layer's backward too, which then need not save its own input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neq.backward.activations import Smooth
from neq.backward.output_channels import layout_of
from neq.backward.recompute import RecomputeSpec, mark_kept, mark_recomputable
from neq.backward.standalone_activation import activation_of_recomputed
from neq.networks.library_layers import LayerNorm2d


def recomputable_activation(made: nn.Module, activation: Smooth) -> nn.Module:
    """The stand-in of an activation that is not in place.

    Args:
        made: the module's shadow.
        activation: that it computes.
    """
    own = type(made).forward

    def forward(input: Tensor) -> Tensor:
        if (fused := activation_of_recomputed(input, activation)) is not None:
            return fused
        out: Tensor = own(made, input)
        if out.requires_grad:
            mark_recomputable(out, RecomputeSpec((input.detach(),), activation.apply))
        return out

    made.forward = forward
    return made


def batch_stats_norm(made: nn.Module) -> nn.Module:
    """The stand-in of a batch norm on batch statistics that follows no convolution: it saves its input.

    Args:
        made: the module's shadow, of the class that computes it.
    """
    own = type(made).forward

    def forward(input: Tensor) -> Tensor:
        out: Tensor = own(made, input)
        if out.requires_grad:
            mark_kept(input)
        return out

    made.forward = forward
    return made


def recomputable_norm(made: nn.Module) -> nn.Module:
    """The stand-in of a layer norm, or group norm, that is computed as torch computes it.

    Args:
        made: the module's shadow, of the class that computes it.
    """
    own = type(made).forward

    def forward(input: Tensor) -> Tensor:
        x = input
        affine = [p for p in (made.weight, made.bias) if p is not None]
        if torch.is_autocast_enabled(x.device.type) or any(p.dtype != x.dtype for p in affine):
            return own(made, x)  # statistics are in another precision
        if isinstance(made, nn.GroupNorm) and not x.is_contiguous(memory_format=_format_of_group_norm(x)):
            return own(made, x)  # which copies its input
        out, spec = _group_norm(made, x) if isinstance(made, nn.GroupNorm) else _layer_norm(made, x)
        if out.requires_grad and spec is not None:
            mark_recomputable(out, spec)
        return out

    made.forward = forward
    return made


def _layer_norm(made: nn.Module, x: Tensor) -> tuple[Tensor, RecomputeSpec]:
    """The norm over the last axes, or over the channels of maps, and x, m and r of gamma (x - m) r + beta."""
    assert isinstance(made, nn.LayerNorm)
    of_maps = isinstance(made, LayerNorm2d)
    last = x.permute(0, 2, 3, 1) if of_maps else x
    out, mean, invstd = torch.native_layer_norm(last, made.normalized_shape, made.weight, made.bias, made.eps)
    affine = tuple(p.detach() for p in (made.weight, made.bias) if p is not None)
    kept = last.detach(), mean.detach(), invstd.detach()
    if not of_maps:
        return out, RecomputeSpec((*kept, *affine), _affine_of, by_channel=False)
    first = tuple(t.permute(0, 3, 1, 2) for t in kept)
    return out.permute(0, 3, 1, 2), RecomputeSpec((*first, *affine), _affine_of_maps)


def _affine_of(x: Tensor, mean: Tensor, invstd: Tensor, *affine: Tensor) -> Tensor:
    out = (x - mean).mul_(invstd)
    if affine:
        out.mul_(affine[0])
    return out.add_(affine[1]) if len(affine) > 1 else out


def _affine_of_maps(x: Tensor, mean: Tensor, invstd: Tensor, *affine: Tensor) -> Tensor:
    return _affine_of(x, mean, invstd, *(vector.view(-1, 1, 1) for vector in affine))


def _format_of_group_norm(x: Tensor) -> torch.memory_format:
    is_last = x.dim() == 4 and x.device.type == "cpu" and layout_of(x) is torch.channels_last
    return torch.channels_last if is_last else torch.contiguous_format


def _group_norm(made: nn.GroupNorm, x: Tensor) -> tuple[Tensor, RecomputeSpec | None]:
    """The norm, and x, s and t of s_BC x_BC... + t_BC; None where s and t are no smaller than the result."""
    batch, channels = x.shape[:2]
    positions = x.numel() // (batch * channels)
    groups, shape = made.num_groups, (batch, channels, *(1,) * (x.dim() - 2))
    out, mean, invstd = torch.native_group_norm(
        x, made.weight, made.bias, batch, channels, positions, groups, made.eps
    )
    if x.dim() != 4 or positions <= 2 or not out.requires_grad:
        return out, None
    mean, scale = (t.detach().repeat_interleave(channels // groups, 1).view(shape) for t in (mean, invstd))
    shift = -mean * scale
    if made.weight is not None:
        weight, bias = (p.detach().view(-1, 1, 1) for p in (made.weight, made.bias))
        scale, shift = scale * weight, shift * weight + bias
    return out, RecomputeSpec(
        (x.detach(), scale, shift), lambda x, scale, shift: torch.addcmul(shift, x, scale)
    )
