"""Views of a module tree: copies in which no tensor is copied, some modules replaced by stand-ins.

The modules of a view read the plain network's weights, detached unless they train, and update its buffers in
place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import Tensor, nn

from neq.networks.graph import has_hooks
from neq.networks.parameter_slice import ParameterSlice


def view(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """The view of a module tree, some of its modules replaced.

    Args:
        module: root of the tree; it is not changed.
        made: module of the tree -> its stand-in in the view; those of all others are added.
    """
    if module not in made:
        made[module] = shadow(module)
        for name, child in module._modules.items():
            made[module]._modules[name] = None if child is None else view(child, made)
    return made[module]


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
    owned = module._parameters
    leaves = {name: (ParameterSlice(), leaf) for name in trained if (leaf := owned[name]) is not None}
    made.__dict__["_parameters"] = StandInParameters(owned, leaves)
    made.training = True
    return made


class SharedAttributes:
    """The attributes that a view has in common with its modules: what a forward leaves there is in both.

    Modules of torch.nn without hooks are left out, since they leave nothing.

    Args:
        made: module -> its stand-in in the view.
    """

    def __init__(self, made: Mapping[nn.Module, nn.Module]) -> None:
        self._shared = [
            (vars(module), vars(stand_in), _own(module, stand_in))
            for module, stand_in in made.items()
            if has_hooks(module) or not type(module).__module__.startswith("torch.nn.modules.")
        ]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Takes the modules' attributes over before a call, and writes them back after it."""
        for module, stand_in, own in self._shared:
            _copy(module, stand_in, own)
        try:
            yield
        finally:
            for module, stand_in, own in self._shared:
                _copy(stand_in, module, own)


def _own(module: nn.Module, stand_in: nn.Module) -> set[str]:
    """The names of what a stand-in has of its own."""
    theirs = vars(module)
    different = {name for name, value in vars(stand_in).items() if theirs.get(name, theirs) is not value}
    return different | {"training", "forward"}


def _copy(source: dict[str, Any], target: dict[str, Any], own: set[str]) -> None:
    for name in target.keys() - source.keys() - own:
        del target[name]
    target.update({name: value for name, value in source.items() if name not in own})


class StandInParameters(dict[str, Tensor | None]):
    """A stand-in's own parameters: whole, as its module holds them now, with gradients for what trains.

    Args:
        owned: the module's; they are read detached, and written to.
        leaves: name of a parameter -> the slice of it that trains, and the leaf that holds the slice.
    """

    def __init__(
        self, owned: dict[str, nn.Parameter | None], leaves: Mapping[str, tuple[ParameterSlice, Tensor]]
    ) -> None:
        super().__init__(dict.fromkeys(owned))
        self._owned, self._leaves = owned, leaves

    def __getitem__(self, name: str) -> Tensor | None:
        owned = self._owned[name]
        if owned is None:
            return None
        if name not in self._leaves:
            return owned.detach()
        part, leaf = self._leaves[name]
        if part.index is None:
            return leaf
        return owned.detach().index_copy(part.axis, part.index.to(leaf.device), leaf)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, None)
        self._owned[name] = value

    def items(self) -> Any:
        """Names and parameters."""
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        """The parameters."""
        return [self[name] for name in self]
