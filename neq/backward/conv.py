"""Stand-ins of convolutions, alone or with the norm and the activation that follow them."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from neq.backward.activations import Activation
from neq.backward.autocast import autocast
from neq.backward.batch_norms import BatchStatsNorm, FrozenNorm
from neq.backward.conv_functions import ChosenChannels, ConvAct, ConvNormAct
from neq.backward.geometry import Geometry
from neq.backward.input_channels import InputChannels
from neq.backward.module_views import shadow
from neq.backward.output_channels import OutputChannels
from neq.backward.recompute import RecomputeSpec, mark_recomputable, recompute_spec
from neq.backward.trainable_layer import TrainableLayer


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
        x, geometry, recompute = _read(module, input)
        scale, shift = None, trains.bias()
        if norm is not None:
            scale, shift = norm.scale_and_shift(shift)
        specs: list[RecomputeSpec] = []
        out: Tensor = ConvAct.apply(
            x, trains.weight, module.weight.detach(), scale, shift, chosen, geometry, activation,
            output_is_kept, recompute, trains.saved_dtype, specs,
        )  # fmt: skip
        return _marked(out, specs)

    return forward


def _norm_forward(
    module: nn.Conv2d, trains: TrainableLayer, norm: BatchStatsNorm, activation: Activation | None
) -> Callable[[Tensor], Tensor]:
    chosen, affine = _chosen(module, trains), norm.affine

    def forward(input: Tensor) -> Tensor:
        x, geometry, recompute = _read(module, input)
        specs: list[RecomputeSpec] = []
        out: Tensor = ConvNormAct.apply(
            x, trains.weight, module.weight.detach(), trains.bias(), affine.weight, affine.bias,
            norm.running(), norm.batch, chosen, geometry, activation, recompute, trains.saved_dtype, specs,
        )  # fmt: skip
        return _marked(out, specs)

    return forward


def _chosen(module: nn.Conv2d, trains: TrainableLayer) -> ChosenChannels | None:
    """The chosen channels of a convolution's weight; None for all or nothing of it."""
    index, device = trains.part.index, module.weight.device
    if index is None or trains.weight is None:
        return None
    if trains.part.axis == 1:
        return InputChannels(index.to(device))
    return OutputChannels.of(index, module.out_channels, module.in_channels, module.groups, device=device)


def _read(module: nn.Conv2d, given: Tensor) -> tuple[Tensor, Geometry, RecomputeSpec | None]:
    """A convolution's input as it computes with it, its geometry, and how to recompute that input."""
    x, padding = _padded(module, given)
    x = autocast(x)  # after padding, which autocast may do in float32
    geometry = Geometry(module.stride, padding, module.dilation, module.groups)  # type: ignore[arg-type]
    is_same = x is given and x.dtype == module.weight.dtype
    return x, geometry, recompute_spec(given) if is_same else None


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
