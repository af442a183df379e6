"""Layers of a plan's view: like the network's own, sharing its tensors, training only what is chosen.

A view is a copy of a network's module tree in which no tensor is copied. Its modules read the plain network's
weights, detached unless they train, and update its buffers in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neq.selective.functions import SelectiveConv2d, SelectiveLinear
from neq.selective.rows import ConvRows


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


def conv(
    module: nn.Conv2d, rows: Tensor | None, bias: Callable[[], Tensor | None], chosen: Tensor | None
) -> nn.Module:
    """The view of a convolution.

    Args:
        module: the plain network's.
        rows: the leaf that holds the chosen rows, [n, in / groups, kh, kw]; none: no row trains.
        bias: gives the bias [out] to use, as a function of whatever trains in it.
        chosen: int64 [n]; none: no row is chosen.
    """
    layout = (
        None
        if chosen is None
        else ConvRows.of(chosen, module.out_channels, module.in_channels, module.groups)
    )
    made = shadow(module)

    def forward(x: Tensor) -> Tensor:
        if x.dim() == 3:
            return forward(x.unsqueeze(0)).squeeze(0)
        weight = module.weight.detach()
        bias_now = bias()
        x, weight, bias_now = _autocast(x, weight, bias_now)
        x, padding = _padded(module, x)
        if rows is None and not x.requires_grad and (bias_now is None or not bias_now.requires_grad):
            return F.conv2d(x, weight, bias_now, module.stride, padding, module.dilation, module.groups)
        return SelectiveConv2d.apply(
            x, rows, weight, bias_now, layout, module.stride, padding, module.dilation, module.groups
        )

    made.forward = forward
    return made


def linear(
    module: nn.Linear, rows: Tensor | None, bias: Callable[[], Tensor | None], chosen: Tensor | None
) -> nn.Module:
    """The view of a linear layer; arguments as for `conv`, rows [n, in]."""
    made = shadow(module)

    def forward(x: Tensor) -> Tensor:
        x, weight, bias_now = _autocast(x, module.weight.detach(), bias())
        return SelectiveLinear.apply(x, rows, weight, bias_now, chosen)

    made.forward = forward
    return made


def frozen_batch_norm(module: _BatchNorm, train_bias: bool) -> nn.Module:
    """A batch norm on running statistics: a scale and a shift per channel that store nothing for backward.

    Args:
        module: BatchNorm1d, 2d or 3d with running statistics.
        train_bias: whether its bias trains, in place.
    """
    made = shadow(module)
    made.training = False

    def forward(x: Tensor) -> Tensor:
        var, mean = module.running_var, module.running_mean
        assert isinstance(var, Tensor)
        assert isinstance(mean, Tensor)
        weight: Tensor | None = module.weight
        bias: Tensor | None = module.bias
        scale = torch.rsqrt(var + module.eps)
        if weight is not None:
            scale = scale * weight.detach()
        shift = -mean * scale
        if bias is not None:
            shift = shift + (bias if train_bias else bias.detach())
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return x * scale.view(shape).to(x.dtype) + shift.view(shape).to(x.dtype)

    made.forward = forward
    return made


def is_plain_batch_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether a module is a batch norm that `frozen_batch_norm` can stand for."""
    return (
        isinstance(module, _BatchNorm)
        and type(module).forward is _BatchNorm.forward
        and module.running_var is not None
    )


def _autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Casts as autocast would: an autograd function of our own is not cast by itself."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)

    def cast(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)

    return cast(x), cast(weight), None if bias is None else cast(bias)


def _padded(module: nn.Conv2d, x: Tensor) -> tuple[Tensor, Any]:
    """The input and the padding left to the convolution: named and non-zero padding is done ahead of it."""
    if module.padding_mode != "zeros":
        return F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), (0, 0)
    if isinstance(module.padding, str):
        return F.pad(x, module._reversed_padding_repeated_twice), (0, 0)
    return x, module.padding
