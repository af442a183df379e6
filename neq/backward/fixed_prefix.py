"""The part of a traced network whose result stays the same for the same images, unless it changes.

Below the earliest layer that trains, under running statistics and without random draws, an image's map does
not depend on what trains, nor on the images beside it. `fixed_prefix` finds the last point of a graph up to
which that holds and behind which nothing else is read: there a map can take the place of its image. What a
forward computes over the batch by functions of its own (x - x.mean(0)) is not seen here.

What the map depends on is in `FixedPrefix.digest`; whoever keeps maps compares it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import is_parametrized

from neq.backward.activations import Activation
from neq.backward.fusion import Trace, works_in_place
from neq.backward.image_draws import drops
from neq.backward.segments import crosses_alone, forwards_of
from neq.networks.graph import graph_of, has_hooks
from neq.networks.layer_kinds import layer_kind

# Words in the names of functions and methods that draw random numbers, of those that can be switched off, and
# of those that use the statistics of a batch.
_DRAWS = ("rand", "bernoulli", "normal_", "uniform_", "multinomial", "exponential_")
_DROPS = ("drop", "stochastic")
_OF_BATCH = ("batch_norm", "instance_norm")
_VIEWS = {
    *("view", "view_as", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "contiguous"),
    *("transpose", "permute", "swapaxes", "movedim", "t", "chunk", "split", "unbind", "narrow", "select"),
    *("getitem", "__getitem__", "to", "type", "float", "detach", "dropout", "dropout2d", "getattr"),
}
_VALUES = (str, int, float, bool, type(None), tuple)


@dataclass(frozen=True)
class Called:
    """What a module of a graph computes.

    Args:
        modules: of the network, by name.
        activation: behind them; none where it is one of them.
    """

    modules: tuple[str, ...]
    activation: Activation | None = None


@dataclass(frozen=True)
class Calls:
    """What a graph's modules compute, and how.

    Args:
        network: the plain network.
        by_name: of the modules that are not the network's own under the same name.
        train: whether they are called in train mode.
        batch_statistics: whether batch norms then use the statistics of the batch.
    """

    network: nn.Module
    by_name: Mapping[str, Called]
    train: bool
    batch_statistics: bool

    def of(self, node: fx.Node) -> Called:
        """What a node's module computes."""
        name = str(node.target)
        return self.by_name.get(name, Called((name,)))


@dataclass(frozen=True)
class FixedPrefix:
    """A network in two parts: before(images) is fixed, and after(before(images)) is the network's result.

    Args:
        point: name of the place between them, the same for all plans of a network.
        layer: name of the last layer before it.
        before: images [B, 3, H, W] -> maps [B, ...], without gradients.
        after: maps -> the network's result.
        digest: returns a hash of all that `before` computes with: weights, statistics, structure.
    """

    point: str
    layer: str
    before: Callable[[Tensor], Tensor]
    after: Callable[[Tensor], Any]
    digest: Callable[[], str]


def fixed_prefix(
    graph: fx.Graph,
    root: nn.Module,
    calls: Calls,
    parts: Collection[str],
    at: str | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> FixedPrefix | None:
    """The longest fixed prefix of a graph that holds a layer; None where there is none.

    Args:
        graph: of the network's forward.
        root: whose modules the graph calls.
        calls: what they compute.
        parts: names of the parameters that train.
        at: the prefix that ends at this point instead; None where that is not fixed.
        context: entered around both parts.
    """
    found = _point(graph, calls, parts, at)
    if found is None:
        return None
    point, layer = found
    first, second = (MethodType(forward, root) for forward in forwards_of(graph, [point]))

    @torch.no_grad()
    def before(images: Tensor) -> Tensor:
        with context():
            maps: Tensor = first(images)
        return maps

    def after(maps: Tensor) -> Any:
        with context():
            return second(maps)

    return FixedPrefix(point.name, layer, before, after, lambda: _digest(graph, point, calls))


def planned_prefix(
    network: nn.Module,
    root: nn.Module,
    trace: Trace,
    parts: Collection[str],
    norm_mode: str,
    at: str | None,
    context: Callable[[], AbstractContextManager[Any]],
) -> FixedPrefix | None:
    """The longest fixed prefix of a plan.

    Args:
        network: the plain network.
        root: the plan's view of it.
        trace: of the network.
        parts: names of the parameters that train.
        norm_mode: of the plan.
        at, context: as for `fixed_prefix`.
    """
    names = {module: name for name, module in network.named_modules()}
    by_name = {name: Called((names[module],)) for name, module in trace.added.items()}
    by_name |= {name: Called(()) for name in trace.gates}
    for block in trace.blocks:
        norm = () if block.norm is None else (block.norm,)
        within = (names[module] for module in block.modules)
        by_name[block.placeholder] = Called(
            tuple(dict.fromkeys((block.conv, *norm, *within))), block.activation
        )
    for alone in trace.standalone:
        modules = tuple(names[module] for module in alone.modules)
        by_name[alone.placeholder] = Called(modules, alone.activation)
    calls = Calls(network, by_name, train=True, batch_statistics=norm_mode != "frozen")
    return fixed_prefix(trace.graph, root, calls, parts, at, context)


def plain_prefix(network: nn.Module, parts: Collection[str], at: str | None = None) -> FixedPrefix | None:
    """The longest fixed prefix of the plain network in eval mode; None where there is none, or no trace.

    Args:
        network: to be called in eval mode.
        parts: names of the parameters that train.
        at: as for `fixed_prefix`.
    """
    try:
        graph = graph_of(network, train=False)
    except Exception:  # a trace runs the network's own code on proxies: anything can happen
        return None
    return fixed_prefix(graph, network, Calls(network, {}, train=False, batch_statistics=False), parts, at)


def _point(
    graph: fx.Graph, calls: Calls, parts: Collection[str], at: str | None
) -> tuple[fx.Node, str] | None:
    """The last node of the prefix, and the last layer in it."""
    modules = dict(calls.network.named_modules())
    alone, layer, found = crosses_alone(graph), None, None
    for node in graph.nodes:
        if node.op == "output" or not _is_fixed(node, calls, modules, parts):
            break
        if node.op == "call_module":
            layers = (name for name in calls.of(node).modules if layer_kind(modules[name]) is not None)
            layer = next(layers, layer)
        if layer is not None and node in alone and at in (None, node.name) and not _is_changed(node, modules):
            found = node, layer
    return found


def _is_changed(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether something behind a node works in place on its result, or on a view of it."""
    return any(
        works_in_place(user, modules) or (_may_be_view(user, modules) and _is_changed(user, modules))
        for user in node.users
    )


def _may_be_view(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node's result may share its input's memory."""
    if node.op == "call_module":
        module = modules.get(str(node.target))
        return isinstance(module, (nn.Flatten, nn.Unflatten, nn.Identity)) or (
            module is not None and "drop" in type(module).__name__.lower()
        )
    return str(getattr(node.target, "__name__", node.target)) in _VIEWS


def _is_fixed(node: fx.Node, calls: Calls, modules: Mapping[str, nn.Module], parts: Collection[str]) -> bool:
    """Whether a node computes the same of the same images in every step."""
    if node.op in ("placeholder", "get_attr"):
        return str(node.target) not in parts
    if node.op != "call_module":
        return not _draws(node)
    for name in calls.of(node).modules:
        if any(part.startswith(f"{name}.") for part in parts):
            return False
        for module in modules[name].modules():
            if has_hooks(module) or is_parametrized(module):
                return False
            if isinstance(module, _NormBase) and not _is_fixed_norm(module, calls.batch_statistics):
                return False
            if calls.train and drops(module):
                return False
    return True


def _is_fixed_norm(norm: _NormBase, batch_statistics: bool) -> bool:
    """Whether a norm normalizes an image by itself, or by what was known before."""
    if norm.running_mean is None:
        return isinstance(norm, _InstanceNorm)
    return not batch_statistics


def _draws(node: fx.Node) -> bool:
    """Whether a function or method draws random numbers, or may look at the batch."""
    name = str(getattr(node.target, "__name__", node.target)).lower()
    if node.kwargs.get("dropout_p", 0) or any(word in name for word in _OF_BATCH):
        return True
    is_off = node.kwargs.get("training") is False or node.kwargs.get("p") == 0
    is_off |= any(value is False for value in node.args)
    is_drop = any(word in name for word in _DROPS)
    return (is_drop and not is_off) or any(word in name for word in _DRAWS)


def _digest(graph: fx.Graph, point: fx.Node, calls: Calls) -> str:
    """Hash of the graph up to a node, and of all values in it."""
    hashed = hashlib.blake2b(digest_size=20)
    for node in graph.nodes:
        target = getattr(node.target, "__name__", node.target)
        hashed.update(f"{node.op} {target} {node.name} {node.args} {node.kwargs}\n".encode())
        if node.op == "call_module":
            called = calls.of(node)
            for name in called.modules:
                for part in _described(calls.network.get_submodule(name)):
                    hashed.update(part)
            if called.activation is not None:
                hashed.update(_values(called.activation.apply(torch.linspace(-8, 8, 64, device="cpu"))))
        elif node.op == "get_attr":
            owner, _, key = str(node.target).rpartition(".")
            hashed.update(_values(getattr(calls.network.get_submodule(owner), key)))
        if node is point:
            break
    return hashed.hexdigest()


def _described(module: nn.Module) -> Iterator[bytes]:
    """Classes, plain attributes and tensors of a module and all within it."""
    for name, part in module.named_modules():
        kind = type(part)
        plain = {
            key: value
            for key, value in sorted(vars(part).items())
            if key != "training" and isinstance(value, _VALUES)
        }
        yield f"{name} {kind.__module__}.{kind.__qualname__} {part.extra_repr()} {plain}\n".encode()
        for key, tensor in (*part._parameters.items(), *part._buffers.items()):
            # A count of batches changes no map under running statistics.
            if tensor is not None and key != "num_batches_tracked":
                yield f"{key} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}\n".encode()
                yield _values(tensor)


def _values(tensor: Tensor) -> bytes:
    found = tensor.detach().cpu().contiguous().reshape(-1)
    return found.view(torch.uint8).numpy().tobytes() if len(found) else b""
