"""Layers of a plan's view: like the network's own, sharing its tensors, training only what is chosen.

A view is a copy of a network's module tree in which no tensor is copied. Its modules read the plain network's
weights, detached unless they train, and update its buffers in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neq.backward.activations import Activation, Clamp
from neq.backward.conv_functions import Chosen, ConvAct, ConvNormAct, Source
from neq.backward.geometry import Geometry
from neq.backward.input_channels import ConvColumns
from neq.backward.linear import SelectiveLinear, StandaloneClamp
from neq.backward.output_channels import ConvRows
from neq.backward.sync_batch_norm import Running, SharedBatch, SharedBatchNorm
from neq.networks.parameter_slice import ParameterSlice


def view(module: nn.Module, made: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The view of a module tree, some of its modules replaced.

    Args:
        module: root of the tree; it is not changed.
        made: module of the tree -> what stands in its place in the view.
    """
    return _view(module, dict(made))


def _view(module: nn.Module, seen: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in seen:
        seen[module] = shadow(module)
        for name, child in module._modules.items():
            seen[module]._modules[name] = None if child is None else _view(child, seen)
    return seen[module]


def shadow(module: nn.Module, trained: tuple[str, ...] = ()) -> nn.Module:
    """A copy of one module that shares its tensors; parameters that are not trained are detached.

    Args:
        module: any module; its children are taken over as they are.
        trained: names of its own parameters that train in place.
    """
    # Not copy.copy, which a module's class may have made its own.
    made: nn.Module = object.__new__(type(module))
    made.__dict__.update(module.__dict__)
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and value.__self__ is module:
            made.__dict__[name] = MethodType(value.__func__, made)  # a forward bound to this module alone
    made.__dict__["_modules"] = dict(module._modules)
    made.__dict__["_parameters"] = {
        name: p if p is None or name in trained else p.detach() for name, p in module._parameters.items()
    }
    made.training = True
    return made


@dataclass(frozen=True)
class Trained:
    """What trains in a convolution or linear layer.

    Args:
        rows: the leaf that holds the chosen part of the weight, or all of it; none: nothing of it trains.
        part: which part.
        bias: gives the bias [out] at each call, as a function of whatever trains in it.
        stored: type that the layer's input is kept in for backward; none: its own.
    """

    rows: Tensor | None
    part: ParameterSlice
    bias: Callable[[], Tensor | None]
    stored: torch.dtype | None = None


@dataclass(frozen=True)
class FrozenNorm:
    """A batch norm on running statistics: a scale and a shift per channel.

    Args:
        module: the plain network's.
        bias: its bias, the leaf where it trains.
    """

    module: _BatchNorm
    bias: Tensor | None

    def scale_and_shift(self, bias_before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both [C], for an input to which a bias [C] is yet to be added."""
        module = self.module
        var, mean = module.running_var, module.running_mean
        assert isinstance(var, Tensor)
        assert isinstance(mean, Tensor)
        weight: Tensor | None = module.weight
        scale = torch.rsqrt(var + module.eps)
        if weight is not None:
            scale = scale * weight.detach()
        shift = (-mean if bias_before is None else bias_before - mean) * scale
        return scale, shift if self.bias is None else shift + self.bias


def conv(
    module: nn.Conv2d,
    trained: Trained,
    norm: FrozenNorm | None = None,
    activation: Activation | None = None,
    output_is_kept: bool = False,
) -> nn.Module:
    """The view of a convolution, with a norm on running statistics and an activation if they follow it.

    Args:
        module: the plain network's.
        trained: what trains in it.
        norm: of its output.
        activation: of what the norm gives.
        output_is_kept: the next layer keeps the result for its own backward.
    """
    chosen = _chosen(module, trained)
    made = shadow(module)

    def forward(x: Tensor) -> Tensor:
        if x.dim() == 3:
            return forward(x.unsqueeze(0)).squeeze(0)
        x, padding, source = _read(module, x)
        geometry = Geometry(module.stride, padding, module.dilation, module.groups)  # type: ignore[arg-type]
        scale, shift = None, trained.bias()
        if norm is not None:
            scale, shift = norm.scale_and_shift(shift)
        sources: list[Source] = []
        out: Tensor = ConvAct.apply(
            x, trained.rows, module.weight.detach(), scale, shift, chosen, geometry, activation,
            output_is_kept, source, trained.stored, sources,
        )  # fmt: skip
        return _with_source(out, sources)

    made.forward = forward
    return made


def conv_norm(
    module: nn.Conv2d,
    trained: Trained,
    norm: _BatchNorm,
    affine: nn.Module,
    activation: Activation | None,
    batch: SharedBatch | None,
) -> nn.Module:
    """The view of a convolution, the batch norm behind it on batch statistics, and its activation.

    Args:
        module: the plain network's convolution.
        trained: what trains in it.
        norm: the plain network's norm, whose running statistics are updated.
        affine: its shadow, whose weight and bias are leaves where they train.
        activation: of what the norm gives.
        batch: that its inputs are a share of; none: they are all of it.
    """
    chosen = _chosen(module, trained)
    made = shadow(module)

    def forward(x: Tensor) -> Tensor:
        x, padding, source = _read(module, x)
        geometry = Geometry(module.stride, padding, module.dilation, module.groups)  # type: ignore[arg-type]
        sources: list[Source] = []
        out: Tensor = ConvNormAct.apply(
            x, trained.rows, module.weight.detach(), trained.bias(), affine.weight, affine.bias,
            _running(norm), batch, chosen, geometry, activation, source, trained.stored, sources,
        )  # fmt: skip
        return _with_source(out, sources)

    made.forward = forward
    return made


def linear(module: nn.Linear, trained: Trained) -> nn.Module:
    """The view of a linear layer."""
    made = shadow(module)
    part = trained.part.on(module.weight.device)

    def forward(x: Tensor) -> Tensor:
        rows, weight = trained.rows, module.weight.detach()
        return SelectiveLinear.apply(_autocast(x), rows, weight, trained.bias(), part, trained.stored)

    made.forward = forward
    return made


def clamp(activation: Clamp, output_is_kept: bool) -> nn.Module:
    """An activation that clamps, alone.

    Args:
        activation: of the input, any shape.
        output_is_kept: the next layer keeps the result for its own backward.
    """
    made = nn.Identity()

    def forward(x: Tensor) -> Tensor:
        return StandaloneClamp.apply(x, activation, output_is_kept)

    made.forward = forward  # type: ignore[assignment, method-assign]
    return made


def frozen_batch_norm(norm: FrozenNorm) -> nn.Module:
    """The view of a batch norm alone on running statistics: it stores nothing for backward."""
    made = shadow(norm.module)
    made.training = False

    def forward(x: Tensor) -> Tensor:
        scale, shift = norm.scale_and_shift(None)
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)

    made.forward = forward
    return made


def shared_batch_norm(norm: _BatchNorm, affine: nn.Module, batch: SharedBatch) -> nn.Module:
    """The view of a batch norm alone on the statistics of a batch that several processes share.

    Args:
        norm: the plain network's, whose running statistics are updated.
        affine: its shadow, whose weight and bias are leaves where they train.
        batch: that its inputs are a share of.
    """

    def forward(x: Tensor) -> Tensor:
        return SharedBatchNorm.apply(x, affine.weight, affine.bias, _running(norm), batch)

    affine.forward = forward
    return affine


def is_plain_batch_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether a module is a batch norm that computes as torch's does, with running statistics."""
    return (
        isinstance(module, _BatchNorm)
        and type(module).forward is _BatchNorm.forward
        and "forward" not in vars(module)
        and module.running_var is not None
    )


def _chosen(module: nn.Conv2d, trained: Trained) -> Chosen | None:
    """The chosen part of a convolution's weight; none for all or nothing of it."""
    index, device = trained.part.index, module.weight.device
    if index is None or trained.rows is None:
        return None
    if trained.part.axis == 1:
        return ConvColumns(index.to(device))
    return ConvRows.of(index, module.out_channels, module.in_channels, module.groups, device=device)


def _read(module: nn.Conv2d, given: Tensor) -> tuple[Tensor, tuple[int, int], Source | None]:
    """A convolution's input as it computes with it, the padding left to it, and the input's source."""
    source, version = getattr(given, "_neq_source", (None, None))
    x, padding = _padded(module, _autocast(given))
    if x is not given or version != given._version or x.dtype != module.weight.dtype:
        source = None  # another tensor, or changed in place since
    return x, padding, source


def _with_source(out: Tensor, sources: list[Source]) -> Tensor:
    """The output, marked with how it can be made again."""
    if sources:
        out._neq_source = (sources[0], out._version)  # type: ignore[attr-defined]
    return out


def _running(norm: _BatchNorm) -> Running:
    """What a norm on batch statistics updates, and how; counts the batch."""
    return norm.running_mean, norm.running_var, _momentum(norm), norm.eps


def _momentum(norm: _BatchNorm) -> float:
    """The weight of this batch in the running statistics; counts the batch, as torch does."""
    batches = norm.num_batches_tracked
    if batches is not None:
        batches.add_(1)
    if norm.momentum is not None:
        return float(norm.momentum)
    return 0.0 if batches is None else 1.0 / float(batches)


def _autocast(x: Tensor) -> Tensor:
    """An input cast as autocast would: an autograd function of our own is not cast by itself."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return x
    if x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


def _padded(module: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The input and the padding left to the convolution: named and non-zero padding is done ahead of it."""
    if module.padding_mode != "zeros":
        return F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), (0, 0)
    if isinstance(module.padding, str):
        return F.pad(x, module._reversed_padding_repeated_twice), (0, 0)
    return x, module.padding  # type: ignore[return-value]
