"""Layers of timm that compute as torch's do, though their forward is their own.

A class counts only once an example of it has computed the same as torch's forward, in train and in eval mode:
a later version of the library may compute otherwise.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of maps [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x [B, C, H, W]."""
        return nn.LayerNorm.forward(self, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


_OWN = (nn.Linear, nn.LayerNorm, nn.GroupNorm, _BatchNorm)
# Class of timm.layers -> the class that computes it, up to the modules `drop` and `act` that a norm may hold.
_LIBRARY: dict[str, type[nn.Module]] = {
    "Linear": nn.Linear,
    "BatchNormAct2d": nn.BatchNorm2d,
    "GroupNorm": nn.GroupNorm,
    "GroupNorm1": nn.GroupNorm,
    "GroupNormAct": nn.GroupNorm,
    "GroupNorm1Act": nn.GroupNorm,
    "LayerNorm": nn.LayerNorm,
    "LayerNormAct": nn.LayerNorm,
    "LayerNorm2d": LayerNorm2d,
    "LayerNormAct2d": LayerNorm2d,
}


def torch_class(module: nn.Module) -> type[nn.Module] | None:
    """The class whose forward computes a Linear or a norm, up to what is `within` it; None: there is none."""
    kind = type(module)
    if "forward" in vars(module) or getattr(module, "_fast_norm", False):
        return None
    for own in _OWN:
        if kind.forward is own.forward:
            return own
    return _library_class(kind)  # type: ignore[arg-type]  # classes are hashable


def within(module: nn.Module) -> tuple[nn.Module, ...]:
    """The modules that a norm of a library applies to its result, in order."""
    if not isinstance(module, _OWN):
        return ()
    found = (module._modules.get("drop"), module._modules.get("act"))
    return tuple(part for part in found if part is not None and type(part) is not nn.Identity)


def timm_layer(name: str) -> type[nn.Module] | None:
    """A class of timm.layers, which is imported wherever there is a network of timm; else None."""
    return getattr(sys.modules.get("timm.layers"), name, None)


@cache
def _library_class(kind: Any) -> type[nn.Module] | None:
    for name, plain in _LIBRARY.items():
        original = timm_layer(name)
        if original is not None and kind.forward is original.forward:
            return plain if _computes_the_same(original, plain) else None
    return None


def _computes_the_same(kind: type[nn.Module], plain: type[nn.Module]) -> bool:
    """Whether an example of a class returns, and updates, what torch's forward and what follows it do."""
    stream = torch.Generator().manual_seed(0)
    with torch.device("cpu"), torch.no_grad(), torch.random.fork_rng(devices=[]):
        module = kind(32, 32) if plain is nn.Linear else kind(32)
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream))
        x = torch.randn(2, 32, 4, 32, generator=stream)
        start = {key: value.clone() for key, value in module.state_dict().items()}
        for mode in (True, False):
            module.train(mode)
            found = []
            for is_plain in (False, True):
                module.load_state_dict(start)
                out = plain.forward(module, x) if is_plain else module(x)
                for part in within(module) if is_plain else ():
                    out = part(out)
                found.append([out, *(value.clone() for value in module.state_dict().values())])
            if not all(map(torch.equal, *found)):
                return False
    return True
