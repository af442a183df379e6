"""Views of a module tree: copies in which no tensor is copied, some modules replaced by stand-ins.

The modules of a view read the plain network's weights, detached unless they train, and update its buffers in
place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType

from torch import nn


def view(module: nn.Module, made: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The view of a module tree, some of its modules replaced.

    Args:
        module: root of the tree; it is not changed.
        made: module of the tree -> its stand-in in the view.
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
        module: any module; its children are shared as they are.
        trained: names of its own parameters that train in place.
    """
    # Not copy.copy, which a module's class may override.
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
