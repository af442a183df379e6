"""Finds and replaces the classifier head of a network, and keeps what it gets."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from neq.utils.errors import UserError


def head_name(network: nn.Module) -> str:
    """The name of the classifier head: the last Linear in module order; without any, the last Conv2d.

    Where a network names the part of it that classifies (timm's do), the head is looked for there; it may be
    a module of another class then.

    Raises:
        UserError: the network has neither.
    """
    named = classifier_modules(network)
    inside = named or set(network.modules())
    for kind in (nn.Linear, nn.Conv2d):
        names = [n for n, module in network.named_modules() if isinstance(module, kind) and module in inside]
        if names:
            return names[-1]
    names = [n for n, module in network.named_modules() if module in named and has_matrix(module)]
    if names:
        return names[-1]
    raise UserError(f"{type(network).__name__} has no classifier head: neither a Linear nor a Conv2d")


def classifier_modules(network: nn.Module) -> set[nn.Module]:
    """All modules of the part that a network names as its classifier; none where it names none."""
    get_classifier = getattr(network, "get_classifier", None)
    named = None if get_classifier is None else get_classifier()
    parts = named if isinstance(named, tuple) else (named,)
    return {module for part in parts if isinstance(part, nn.Module) for module in part.modules()}


def has_matrix(module: nn.Module) -> bool:
    """Whether a module has, itself, a parameter of more than one axis, parametrized or not."""
    own = (p is not None and p.dim() > 1 for p in module._parameters.values())
    return any(own) or is_parametrized(module)


def replace_head(network: nn.Module, num_classes: int) -> None:
    """Replaces the head by one with num_classes outputs, drawn from torch's random state."""
    name = head_name(network)
    old = network.get_submodule(name)
    assert isinstance(old, (nn.Linear, nn.Conv2d))
    with old.weight.device:
        if isinstance(old, nn.Linear):
            new: nn.Module = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
        else:
            assert old.kernel_size == (1, 1), "a head sees the pooled map"
            new = nn.Conv2d(old.in_channels, num_classes, 1, bias=old.bias is not None)
    network.set_submodule(name, new.to(old.weight.dtype))


class HeadInputs:
    """A context in which the inputs of a network's classifier head are kept: the features of each call.

    Args:
        head: of the plain network, or of which a plan has a stand-in: both run its hooks.

    Attributes:
        found: of each call so far, [B, F].
    """

    def __init__(self, head: nn.Module) -> None:
        self._head = head
        self.found: list[Tensor] = []

    def __enter__(self) -> Self:
        self._hook = self._head.register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _keep(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.found.append(inputs[0].flatten(1))

    def features(self) -> Tensor:
        """Of the calls so far, one after another, [n, F], in float32 or more."""
        found = torch.cat(self.found) if len(self.found) > 1 else self.found[0]
        return found.to(torch.promote_types(found.dtype, torch.float32))
