"""What the modules of a network hold: compared before and after a trial run, and restored."""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn

_PLAIN = {str, int, float, bool, type(None), tuple}
_HOOKS = {name for name in vars(nn.Module()) if "hooks" in name}
_BY_IDENTITY = (Tensor, torch.Generator, type, FunctionType, BuiltinFunctionType, ModuleType, fx.Proxy)


class ModuleState(pickle.Pickler):
    """Everything that a network's modules reach through attributes, containers and objects.

    It is read in the order in which pickle would write it. Plain values count by value; tensors, functions,
    classes and what pickle cannot write count by identity; `training` flags are left out.

    Args:
        network: any module.

    Attributes:
        digest: hash of the state; None where an object cannot be read.
        tensors: all tensors in it.
    """

    def __init__(self, network: nn.Module) -> None:
        written = hashlib.blake2b()
        super().__init__(SimpleNamespace(write=written.update), protocol=4)
        self.tensors: list[Tensor] = []
        self.digest: bytes | None = None
        self._contents: dict[int, tuple[Any, Any]] = {}
        try:
            self.dump(network)
            self.digest = written.digest()
        except Exception:  # objects of any class are read: anything can happen
            return

    def restore(self) -> None:
        """Puts attributes and the contents of lists, dicts and sets back."""
        for container, content in self._contents.values():
            container.clear()
            container.extend(content) if isinstance(content, list) else container.update(content)

    def persistent_id(self, obj: Any) -> int | None:
        """What stands for an object that counts by identity. (pickle calls this for every object.)"""
        if type(obj) in _PLAIN:
            return None
        if isinstance(obj, (list, deque)):
            self._contents[id(obj)] = obj, list(obj)
        elif isinstance(obj, (dict, set)):
            self._contents[id(obj)] = obj, obj.copy()
        elif isinstance(obj, Tensor):
            self.tensors.append(obj)
        return id(obj) if isinstance(obj, _BY_IDENTITY) else None

    def reducer_override(self, obj: Any) -> Any:
        """The class and the content of an object. (pickle calls this for all but plain values.)"""
        attributes = getattr(obj, "__dict__", None)
        if isinstance(attributes, dict):
            self._contents[id(attributes)] = attributes, attributes.copy()
        if isinstance(obj, nn.Module):
            read = {k: v for k, v in vars(obj).items() if k != "training" and (k not in _HOOKS or v)}
            return tuple, (type(obj),), read
        try:
            reduced = obj.__reduce_ex__(4)
        except Exception:  # of a lock or a generator, say
            reduced = ""
        if isinstance(reduced, str):  # a named constant, or what pickle cannot write
            return tuple, (id(obj),)
        return tuple, (type(obj), reduced[1]), *reduced[2:]


@contextmanager
def unchanged(network: nn.Module) -> Iterator[Callable[[], bool]]:
    """Puts a network's modules back as they were, whatever its forward did to them inside.

    Yields:
        A function that returns whether they differ now, or may differ, from what they were.
    """
    before = ModuleState(network)
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in network.buffers()]

    def changed() -> bool:
        written = any(buffer._version != version for buffer, version, _ in buffers)
        return written or before.digest is None or ModuleState(network).digest != before.digest

    try:
        yield changed
    finally:
        before.restore()
        with torch.no_grad():
            for buffer, version, value in buffers:
                if buffer._version != version:
                    buffer.copy_(value)
