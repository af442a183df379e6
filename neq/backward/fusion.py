"""Finding what can be fused: convolution, norm and activation that follow one another in a traced network.

A network is traced once. The trace calls a placeholder where a convolution, its norm and its activation
were; a plan replaces each placeholder by a stand-in. A network that cannot be traced runs layer by layer.
"""

from __future__ import annotations

import logging
import operator
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from neq.backward.activations import FUNCTIONS, GELU_TANH, METHODS, Activation, Clamp, activation_of
from neq.backward.batch_norms import is_plain_batch_norm
from neq.backward.max_pool import is_max_pool
from neq.backward.segments import cut_points, forward_of
from neq.backward.stand_ins import stand_in
from neq.networks.graph import graph_of, has_hooks
from neq.networks.layer_kinds import layer_kind
from neq.networks.library_layers import torch_class, within
from neq.networks.module_state import ModuleState
from neq.networks.neurons import NORMS, NeuronTable
from neq.utils.errors import first_line

log = logging.getLogger("neq")


@dataclass(frozen=True)
class Block:
    """A convolution and what follows it.

    Args:
        conv: name of the convolution, or of another layer whose kind has a fused stand-in.
        norm: name of the batch norm that is the only one to take its output, if there is one.
        activation: the only one to take the result so far, if there is one.
        modules: that are fused, in order; their hooks would not be called.
        placeholder: name of the module that represents the block in the trace.
        readers: names of the fused convolutions that take its output; empty where something changes it in
            place.
        is_pooled: there is no norm, and max pooling keeps the output.
    """

    conv: str
    norm: str | None
    activation: Activation | None
    modules: tuple[nn.Module, ...]
    placeholder: str
    readers: tuple[str, ...]
    is_pooled: bool


@dataclass(frozen=True)
class StandaloneActivation:
    """An activation that clamps and follows no convolution.

    Args:
        activation: the activation.
        modules: its module, if it is one.
        placeholder: name of the module that represents it in the trace.
        readers: as in `Block`.
    """

    activation: Clamp
    modules: tuple[nn.Module, ...]
    placeholder: str
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """A traced network.

    Args:
        forward: of a view of the network in which modules of the placeholders' names are added.
        blocks: what was fused.
        standalone: activations that follow no convolution.
        gates: names of the modules that represent products of two results, squeeze-and-excite's among them.
        added: modules within norms by the names that they are called by.
        graph: of the forward.
        cut_points: where it can be cut, as `neq.backward.segments.cut_points` returns them.
        inexact: those of them behind a fused norm with an activation, or a product: under batch statistics a
            layer there reads the map itself if it is cut off, not one that is recomputed, so that last digits
            differ.
    """

    forward: Callable[..., Any]
    blocks: tuple[Block, ...]
    standalone: tuple[StandaloneActivation, ...]
    gates: tuple[str, ...]
    added: Mapping[str, nn.Module]
    graph: fx.Graph
    cut_points: Mapping[str, fx.Node]
    inexact: frozenset[str]


# id of a network -> its state when it was traced, its trace, and what removes both with the network.
_traces: dict[int, tuple[object, Trace | None, weakref.ref[nn.Module]]] = {}


def traced(network: nn.Module, table: NeuronTable) -> Trace | None:
    """The network's trace, made anew when what its modules hold changes; None if it cannot be traced.

    Args:
        network: any module.
        table: its neurons.
    """
    key, digest = id(network), ModuleState(network).digest
    now = digest, tuple(layer.name for layer in table.layers), table.head
    known = _traces.get(key)
    if known is None or known[2]() is not network or known[0] != now or digest is None:
        try:
            trace = _trace(network, table)
        except Exception as error:  # a trace runs the network's own code on proxies: anything can happen
            reason = first_line(error)
            log.info("%s cannot be traced (%s): it trains layer by layer", type(network).__name__, reason)
            trace = None
        known = (now, trace, weakref.ref(network, lambda _: _traces.pop(key, None)))
        _traces[key] = known
    return known[1]


def _trace(network: nn.Module, table: NeuronTable) -> Trace:
    graph = graph_of(network)
    modules = dict(network.named_modules())
    if any(has_hooks(module) for module in modules.values() if within(module)):
        raise ValueError("a norm that holds its activation has hooks")
    added = _simplify(graph, modules)
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    needed = {layer.name for layer in table.layers} | table.norm_order.keys() | {table.head}
    if not needed <= calls.keys():
        raise ValueError(f"it does not call {min(needed - calls.keys())} as a module")
    convs = {layer.name for layer in table.layers if stand_in(layer.kind).fuse is not None}
    found = [
        (nodes[0], *_chain(nodes[0], modules, calls))
        for name, nodes in calls.items()
        if name in convs and len(nodes) == 1 and _is_plain_call(nodes[0])
    ]
    fused_too = {node for *_, nodes in found for node in nodes}
    clamps = [
        (node, activation)
        for node in graph.nodes
        if node not in fused_too
        and isinstance(activation := _activation(node, modules), Clamp)
        and _is_standalone(node, modules)
    ]
    ends: dict[fx.Node, str] = {}
    for number, (conv, _, _, last, _) in enumerate(found):
        with graph.inserting_after(conv):
            fused = graph.call_module(f"_neq_block_{number}", (conv.args[0],))
        last.replace_all_uses_with(fused)
        ends[fused] = str(conv.target)
    for *_, fused_nodes in found:
        for node in reversed(fused_nodes):
            graph.erase_node(node)
    alone: dict[fx.Node, tuple[Clamp, tuple[nn.Module, ...]]] = {}
    for number, (node, activation) in enumerate(clamps):
        with graph.inserting_after(node):
            placeholder = graph.call_module(f"_neq_clamp_{number}", (node.args[0],))
        node.replace_all_uses_with(placeholder)
        alone[placeholder] = activation, (modules[str(node.target)],) if node.op == "call_module" else ()
        graph.erase_node(node)
    gates = _products(graph)
    # Only the code is needed: what it reads is found in the view that runs it.
    forward = forward_of(graph)

    def readers(node: fx.Node) -> tuple[str, ...]:
        # A result that something changes in place must not be kept for backward.
        if any(works_in_place(user, modules) for user in node.users):
            return ()
        return tuple(ends[user] for user in node.users if user in ends)

    fused_by_conv = {name: node for node, name in ends.items()}
    blocks = tuple(
        Block(
            str(conv.target),
            None if norm is None else str(norm.target),
            activation,
            tuple(modules[str(node.target)] for node in fused_nodes if node.op == "call_module"),
            f"_neq_block_{number}",
            readers(fused_by_conv[str(conv.target)]),
            norm is None and any(_pools(user, modules) for user in fused_by_conv[str(conv.target)].users),
        )
        for number, (conv, norm, activation, _, fused_nodes) in enumerate(found)
    )
    standalone = tuple(
        StandaloneActivation(activation, owners, str(node.target), readers(node))
        for node, (activation, owners) in alone.items()
    )
    called = {node: str(node.target) for node in graph.nodes if node.op == "call_module"} | ends
    layers = {node: name for node, name in called.items() if name in needed}
    points = {
        name: node
        for name, node in cut_points(graph, layers).items()
        if not any(user.args[0] is node and works_in_place(user, modules) for user in node.users)
    }
    recomputed = {block.placeholder for block in blocks if block.norm and block.activation} | set(gates)
    inexact = frozenset(name for name, node in points.items() if node.target in recomputed)
    return Trace(forward, blocks, standalone, gates, added, graph, points, inexact)


def _products(graph: fx.Graph) -> tuple[str, ...]:
    """Calls a module in place of each product of two results; the names of these modules."""
    names: list[str] = []
    for node in list(graph.nodes):
        is_product = node.target in _PRODUCTS[node.op] if node.op in _PRODUCTS else False
        if not is_product or node.kwargs or len(node.args) != 2:
            continue
        if all(isinstance(factor, fx.Node) and factor.op != "get_attr" for factor in node.args):
            names.append(f"_neq_gate_{len(names)}")
            with graph.inserting_after(node):
                placeholder = graph.call_module(names[-1], node.args)
            node.replace_all_uses_with(placeholder)
            graph.erase_node(node)
    return tuple(names)


_PRODUCTS: Mapping[str, tuple[object, ...]] = {
    "call_function": (operator.mul, torch.mul),
    "call_method": ("mul",),
}


def _simplify(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Leaves Identity out, and calls what a norm applies to its result behind it.

    The norm's own call then is the norm alone.

    Args:
        graph: is changed.
        modules: by name; receives the modules that are called now.

    Returns:
        Those modules, by the names that they are called by.
    """
    added: dict[str, nn.Module] = {}
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        if type(modules[str(node.target)]) is nn.Identity and _is_plain_call(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            continue
        if torch_class(modules[str(node.target)]) is None:
            continue
        for part in within(modules[str(node.target)]):
            name = f"_neq_within_{len(modules)}"
            modules[name] = added[name] = part
            with graph.inserting_after(node):
                behind = graph.call_module(name, (node,))
            node.replace_all_uses_with(behind, lambda user, behind=behind: user is not behind)
            node = behind
    return added


def _chain(
    conv: fx.Node, modules: dict[str, nn.Module], calls: dict[str, list[fx.Node]]
) -> tuple[fx.Node | None, Activation | None, fx.Node, list[fx.Node]]:
    """The norm and activation behind a convolution, the last node of them, and all of them."""
    chain, norm = [conv], None
    follower = _only_user(conv)
    if follower is not None and follower.op == "call_module":
        name = str(follower.target)
        if is_plain_batch_norm(modules[name]) and len(calls[name]) == 1 and modules[name].affine:
            norm = follower
            chain.append(norm)
            follower = _only_user(norm)
    activation = None if follower is None else _activation(follower, modules)
    if activation is not None:
        assert follower is not None
        chain.append(follower)
    return norm, activation, chain[-1], chain


def _only_user(node: fx.Node) -> fx.Node | None:
    """The one node that takes this one's result, as its first argument."""
    users = list(node.users)
    if len(users) != 1 or not users[0].args or users[0].args[0] is not node:
        return None
    return users[0]


def _activation(node: fx.Node, modules: dict[str, nn.Module]) -> Activation | None:
    if node.op == "call_module":
        return activation_of(modules[str(node.target)])
    if node.op == "call_function":
        return GELU_TANH if node.kwargs.get("approximate") == "tanh" else FUNCTIONS.get(node.target)
    return METHODS.get(str(node.target)) if node.op == "call_method" else None


def _is_standalone(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether nothing else sees the node's input: the node may work in place, and its stand-in does not."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    if not works_in_place(node, modules):
        return True
    return _is_made_new(source, modules)


def _is_made_new(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a result is a tensor of its own that one node alone takes."""
    if len(node.users) != 1:
        return False
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, NORMS) or layer_kind(module) is not None
    if node.target is operator.iadd:
        into = node.args[0]
        return isinstance(into, fx.Node) and _is_made_new(into, modules)
    return node.target in (operator.add, torch.add)


def _pools(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node is max pooling over images that keeps its input for backward."""
    if node.op == "call_module":
        module = modules.get(str(node.target))
        return type(module) is nn.MaxPool2d and (has_hooks(module) or not is_max_pool(module))
    return node.target in (F.max_pool2d, torch.max_pool2d)


def works_in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a node may change its input."""
    if node.kwargs.get("inplace"):
        return True
    if node.op == "call_module":
        return bool(getattr(modules.get(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    if node.op == "call_method":
        return name.endswith("_") or name == "__setitem__"
    return node.op == "call_function" and (name.endswith("_") or name in _IN_PLACE)


_IN_PLACE = {name for name in vars(operator) if name.startswith("i") and hasattr(operator, f"__{name}__")}
_IN_PLACE |= {"setitem"}


def is_split(module: nn.Module) -> bool:
    """Whether a plan calls what a norm holds behind it, as a module of its own."""
    return bool(within(module)) and torch_class(module) is not None and not has_hooks(module)


def _is_plain_call(node: fx.Node) -> bool:
    return len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs
