"""Layers of other widths: the structure that structured pruning leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from neq.networks.recipe import register_transform

# Kind of layer -> the attributes that hold its widths.
_ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.modules.batchnorm._BatchNorm: ("num_features",),
    nn.GroupNorm: ("num_groups", "num_channels"),
    nn.LayerNorm: ("normalized_shape",),
}
# Name of an attribute -> its value; a LayerNorm's is a list.
Widths = Mapping[str, int | list[int]]


def widths(network: nn.Module) -> dict[str, Widths]:
    """The widths of every layer that has any, by its name."""
    found: dict[str, Widths] = {}
    for name, module in network.named_modules():
        if attributes := _attributes(module):
            found[name] = {key: _plain(getattr(module, key)) for key in attributes}
    return found


def changed_widths(before: Mapping[str, Widths], after: Mapping[str, Widths]) -> dict[str, Widths]:
    """The widths that differ, as the transform `widths` takes them."""
    return {
        name: {key: value for key, value in after[name].items() if value != old[key]}
        for name, old in before.items()
        if after[name] != old
    }


@register_transform("widths")
def resized(network: nn.Module, layers: Mapping[str, Widths]) -> nn.Module:
    """Replaces the parameters of layers by random ones of other widths, in place.

    Args:
        network: with these layers.
        layers: name of a layer -> its widths that change.

    Raises:
        ValueError: a layer of a kind that has no such widths, or one that would grow.
    """
    for name, sizes in layers.items():
        module = network.get_submodule(name)
        if not set(sizes) <= set(_attributes(module)):
            raise ValueError(f"{name}, a {type(module).__name__}, has no {', '.join(sizes)}")
        for key, value in sizes.items():
            setattr(module, key, tuple(value) if isinstance(value, list) else value)
        _resize(module)
    return network


def _resize(module: nn.Module) -> None:
    """Gives a layer parameters and buffers of the shapes that its widths mean."""
    shapes: dict[str, tuple[int, ...]]
    match module:
        case nn.Conv2d():
            inputs = module.in_channels // module.groups
            shapes = {"weight": (module.out_channels, inputs, *module.kernel_size)}
            shapes["bias"] = (module.out_channels,)
        case nn.Linear():
            shapes = {"weight": (module.out_features, module.in_features), "bias": (module.out_features,)}
        case nn.LayerNorm():
            shapes = dict.fromkeys(("weight", "bias"), tuple(module.normalized_shape))
        case _:
            features = module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features
            assert isinstance(features, int)
            shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (features,))
    for key, shape in shapes.items():
        old = getattr(module, key, None)
        if old is not None:
            if math.prod(shape) > old.numel():
                raise ValueError(f"{key} of a {type(module).__name__} would grow to {shape}")
            new = torch.empty(shape, dtype=old.dtype, device=old.device)
            setattr(module, key, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
    reset = module.reset_parameters
    assert callable(reset)
    reset()


def _attributes(module: nn.Module) -> tuple[str, ...]:
    return next((keys for kind, keys in _ATTRIBUTES.items() if isinstance(module, kind)), ())


def _plain(value: int | tuple[int, ...]) -> int | list[int]:
    return value if isinstance(value, int) else list(value)
