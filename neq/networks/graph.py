"""Traces a network with torch.fx, or raises the reason why it cannot be traced."""

from __future__ import annotations

import inspect
import operator
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neq.networks.layer_kinds import layer_kind
from neq.networks.module_state import unchanged
from neq.networks.neurons import NORMS


class _Proxy(fx.Proxy):
    """A proxy that stays the same tensor under `+=` and its like, which fx itself takes for new ones."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)

    def _in_place(self, function: Callable[..., Any], other: Any) -> fx.Proxy:
        made: fx.Proxy = self.tracer.create_proxy("call_function", function, (self, other), {})
        return made


class _Tracer(fx.Tracer):
    """Traces through everything but the layers that a plan replaces; raises for what a graph cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self._regions = _regions()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Selectable layers and norms stay whole, whoever defined their class."""
        return (
            isinstance(m, NORMS)
            or layer_kind(m) is not None
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Raises where a module that is traced through has hooks: they would see proxies."""
        if has_hooks(m) and not self.is_leaf_module(m, self.path_of_module(m)):
            raise ValueError(f"{self.path_of_module(m)} has hooks")
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The proxy of a node."""
        return _Proxy(node, self)

    def create_proxy(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        """Raises for regions that a graph cannot hold: no_grad, autocast, checkpointing."""
        if _regions() != self._regions:
            raise ValueError("its forward switches gradients, autocast or checkpointing")
        return super().create_proxy(*args, **kwargs)


class _NoValues(TorchDispatchMode):
    """Raises where a forward reads the value of a tensor, which a graph would hold as a constant."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise ValueError("its forward reads the value of a tensor")
        return func(*args, **(kwargs or {}))


def _regions() -> tuple[bool, bool, bool, bool]:
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    cpu, cuda = (torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))
    return torch.is_grad_enabled(), cpu, cuda, hooks is not None


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks, which a trace or a fused stand-in would not call."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


def graph_of(network: nn.Module, train: bool = True) -> fx.Graph:
    """The network's graph.

    Args:
        network: any module.
        train: whether in train mode, or in eval mode.

    Raises:
        ValueError: its forward takes more than one input, draws random numbers, reads the value of a tensor
            or changes what its modules hold, or modules that hold others have hooks: a graph would do so
            once and never again. The network and all random states are left unchanged.
    """
    if len(inspect.signature(network.forward).parameters) != 1:
        raise ValueError("its forward takes more than one input")
    if has_hooks(network):
        raise ValueError("it has hooks")
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    with unchanged(network) as changed:
        network.train(train)  # branches on `training` are traced that way
        try:
            with _NoValues():
                graph = _Tracer().trace(network)
        finally:
            drew = not torch.equal(states[0], torch.get_rng_state()) or states[1] != random.getstate()
            drew |= not np.array_equal(states[2][1], np.random.get_state()[1])  # type: ignore[index]
            torch.set_rng_state(states[0])
            random.setstate(states[1])
            np.random.set_state(states[2])
        if drew:
            raise ValueError("its forward draws random numbers")
        if changed():
            raise ValueError("its forward changes its modules")
    return graph
