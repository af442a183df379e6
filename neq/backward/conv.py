"""Stand-ins of convolutions, alone or with the norm and the activation that follow them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from neq.backward.activations import Activation
from neq.backward.autocast import autocast
from neq.backward.batch_norms import BatchStatsNorm, FrozenNorm
from neq.backward.conv_functions import ChosenChannels, ConvAct, ConvNormAct, fold
from neq.backward.geometry import Geometry
from neq.backward.input_channels import InputChannels
from neq.backward.module_views import shadow
from neq.backward.output_channels import OutputChannels
from neq.backward.recompute import RecomputeSpec, is_input, mark_recomputable, recompute_spec
from neq.backward.trainable_layer import TrainableLayer

# Multiply-accumulates of one value of a result that is computed twice rather than kept: a 3x3 stem's are 27.
CHEAP_MACS = 32


def conv_stand_in(module: nn.Module, trains: TrainableLayer) -> nn.Module:
    """The stand-in of a convolution alone."""
    if trains.is_stock:
        return shadow(module, trains.in_place)
    return fused_conv_stand_in(module, trains, None, None, False)


def fused_conv_stand_in(
    module: nn.Module,
    trains: TrainableLayer,
    norm: FrozenNorm | BatchStatsNorm | None,
    activation: Activation | None,
    output_is_kept: bool,
) -> nn.Module:
    """The stand-in of a convolution and of what follows it.

    Args:
        module: the plain network's convolution.
        trains: what trains in it.
        norm: of its output, if one follows.
        activation: of the norm's output, if one follows.
        output_is_kept: the next layer keeps the result for its own backward.
    """
    assert isinstance(module, nn.Conv2d)
    made = shadow(module)
    if isinstance(norm, BatchStatsNorm):
        made.forward = _norm_forward(module, trains, norm, activation)
    else:
        made.forward = _forward(module, trains, norm, activation, output_is_kept)
    return made


def _forward(
    module: nn.Conv2d,
    trains: TrainableLayer,
    norm: FrozenNorm | None,
    activation: Activation | None,
    output_is_kept: bool,
) -> Callable[[Tensor], Tensor]:
    chosen = _chosen(module, trains)

    def forward(input: Tensor) -> Tensor:
        if input.dim() == 3:
            return forward(input.unsqueeze(0)).squeeze(0)
        x, geometry, recompute = _read(module, input, chosen)
        scale, shift = None, trains.bias()
        if norm is not None:
            scale, shift = norm.scale_and_shift(shift)
        specs: list[RecomputeSpec] = []
        computes_again = is_input(x) and _is_cheap(module)
        out: Tensor = ConvAct.apply(
            x, trains.weight, module.weight.detach(), scale, shift, chosen, geometry, activation,
            output_is_kept and not computes_again, recompute, trains.saved_dtype, specs,
        )  # fmt: skip
        if computes_again and not specs:
            kept = (x, module.weight.detach(), *(v.detach() for v in (scale, shift) if v is not None))
            again = partial(_again, geometry, activation, scale is not None)
            specs.append(RecomputeSpec(kept, again, by_channel=False))
        return _marked(out, specs)

    return forward


def _norm_forward(
    module: nn.Conv2d, trains: TrainableLayer, norm: BatchStatsNorm, activation: Activation | None
) -> Callable[[Tensor], Tensor]:
    chosen, affine = _chosen(module, trains), norm.affine

    def forward(input: Tensor) -> Tensor:
        x, geometry, recompute = _read(module, input, chosen)
        specs: list[RecomputeSpec] = []
        out: Tensor = ConvNormAct.apply(
            x, trains.weight, module.weight.detach(), trains.bias(), affine.weight, affine.bias,
            norm.running(), norm.batch, chosen, geometry, activation, recompute, trains.saved_dtype, specs,
        )  # fmt: skip
        return _marked(out, specs)

    return forward


def _is_cheap(module: nn.Conv2d) -> bool:
    """Whether computing a value of the result once more costs little beside reading and writing it."""
    return module.weight[0].numel() <= CHEAP_MACS


def _again(
    geometry: Geometry,
    activation: Activation | None,
    has_scale: bool,
    x: Tensor,
    weight: Tensor,
    *vectors: Tensor,
) -> Tensor:
    """act(s (x * W) + t), once more in backward; vectors: s and t, as far as there are any."""
    scale = vectors[0] if has_scale else None
    shift = vectors[-1].to(x.dtype) if len(vectors) > has_scale else None
    out = geometry.forward(x, fold(weight, scale, x.dtype), shift)
    return out if activation is None else activation.apply(out)


def _chosen(module: nn.Conv2d, trains: TrainableLayer) -> ChosenChannels | None:
    """The chosen channels of a convolution's weight; None for all or nothing of it."""
    index, device = trains.part.index, module.weight.device
    if index is None or trains.weight is None:
        return None
    if trains.part.axis == 1:
        return InputChannels(index.to(device))
    return OutputChannels.of(index, module.out_channels, module.in_channels, module.groups, device=device)


def _read(
    module: nn.Conv2d, given: Tensor, chosen: ChosenChannels | None
) -> tuple[Tensor, Geometry, RecomputeSpec | None]:
    """A convolution's input as it computes with it, its geometry, and how to recompute that input."""
    x, padding = _padded(module, given)
    x = autocast(x)  # after padding, which autocast may do in float32
    geometry = Geometry(module.stride, padding, module.dilation, module.groups)  # type: ignore[arg-type]
    is_same = x is given and x.dtype == module.weight.dtype
    recompute = recompute_spec(given) if is_same else None
    if (
        recompute is not None
        and not recompute.by_channel
        and chosen is not None
        and chosen.inputs is not None
    ):
        recompute = None  # a few channels are kept rather than all of them recomputed
    return x, geometry, recompute


def _marked(out: Tensor, specs: list[RecomputeSpec]) -> Tensor:
    """The output, marked with how to recompute it."""
    if specs:
        mark_recomputable(out, specs[0])
    return out


def _padded(module: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The input and the padding left to the convolution: named and non-zero padding is done ahead of it."""
    if module.padding_mode != "zeros":
        return F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), (0, 0)
    if isinstance(module.padding, str):
        return F.pad(x, module._reversed_padding_repeated_twice), (0, 0)
    return x, module.padding  # type: ignore[return-value]
