"""Finding what can be fused: convolution, norm and activation that follow one another in a traced network.

A network is traced once. The trace calls a placeholder where a convolution, its norm and its activation
stood; a plan puts its own module in each placeholder's place. A network that cannot be traced is run layer
by layer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import fx, nn

from neq.neurons import NeuronTable
from neq.selective.activation import FUNCTIONS, METHODS, Activation, activation_of
from neq.selective.layers import is_plain_batch_norm

log = logging.getLogger("neq")


@dataclass(frozen=True)
class Block:
    """A convolution and what follows it.

    Args:
        conv: name of the convolution.
        norm: name of the batch norm that alone takes its output, if there is one.
        activation: that alone takes what comes then.
        parts: the modules that are fused, in order; their hooks would not be called.
        placeholder: what stands for it in the trace.
        readers: names of the convolutions that take its output as it is, of other blocks too.
    """

    conv: str
    norm: str | None
    activation: Activation | None
    parts: tuple[nn.Module, ...]
    placeholder: nn.Module
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """A traced network.

    Args:
        module: takes what the network takes; shares its modules and tensors.
        blocks: what was fused.
        containers: modules that are not called any more, since the trace goes through them.
    """

    module: fx.GraphModule
    blocks: tuple[Block, ...]
    containers: tuple[nn.Module, ...]


_traces: WeakKeyDictionary[nn.Module, Trace | None] = WeakKeyDictionary()


def traced(network: nn.Module, table: NeuronTable) -> Trace | None:
    """The network's trace, made once; none if it cannot be traced.

    Args:
        network: any module.
        table: its neurons.
    """
    if network not in _traces:
        try:
            _traces[network] = _trace(network, table)
        except Exception as error:  # a trace runs the network's own code on stand-ins: anything can happen
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.info("%s cannot be traced (%s): it trains layer by layer", type(network).__name__, reason)
            _traces[network] = None
    return _traces[network]


def _trace(network: nn.Module, table: NeuronTable) -> Trace:
    modes = {module: module.training for module in network.modules()}
    network.train()  # a plan trains: branches on `training` are to be taken that way
    try:
        graph = fx.Tracer().trace(network)
    finally:
        for module, mode in modes.items():
            module.training = mode
    modules = dict(network.named_modules())
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    convs = {layer.name for layer in table.layers if layer.kind == "conv"}
    found = [
        (nodes[0], *_chain(nodes[0], modules, calls))
        for name, nodes in calls.items()
        if name in convs and len(nodes) == 1 and _is_plain_call(nodes[0])
    ]
    placeholders: dict[str, nn.Module] = {}
    ends: dict[fx.Node, str] = {}
    for number, (conv, norm, activation, last, _) in enumerate(found):
        name = f"_neq_block_{number}"
        placeholders[name] = nn.Identity()
        with graph.inserting_after(last):
            fused = graph.call_module(name, (conv.args[0],))
        last.replace_all_uses_with(fused)
        ends[fused] = str(conv.target)
        del norm, activation
    for *_, chain in found:
        for node in reversed(chain):
            graph.erase_node(node)
    called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    root = {name: placeholders.get(name) or modules[name] for name in called}
    root |= {str(n.target): _attribute(network, str(n.target)) for n in graph.nodes if n.op == "get_attr"}
    traced_module = fx.GraphModule(root, graph, type(network).__name__)
    readers = {name: tuple(ends[user] for user in node.users if user in ends) for node, name in ends.items()}
    blocks = tuple(
        Block(
            str(conv.target),
            None if norm is None else str(norm.target),
            activation,
            tuple(modules[str(node.target)] for node in chain if node.op == "call_module"),
            placeholders[f"_neq_block_{number}"],
            readers[str(conv.target)],
        )
        for number, (conv, norm, activation, _, chain) in enumerate(found)
    )
    kept = {modules[name] for name in called if name in modules}
    leaves = {module for name in calls for module in modules[name].modules()}
    return Trace(traced_module, blocks, tuple(m for m in modules.values() if m not in leaves | kept))


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
        return FUNCTIONS.get(node.target)  # type: ignore[arg-type]
    return METHODS.get(str(node.target)) if node.op == "call_method" else None


def has_hooks(module: nn.Module) -> bool:
    """Whether someone listens to a module's calls, which fusing would leave out."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


def _is_plain_call(node: fx.Node) -> bool:
    return len(node.args) == 1 and isinstance(node.args[0], fx.Node) and not node.kwargs


def _attribute(network: nn.Module, name: str) -> object:
    found: object = network
    for part in name.split("."):
        found = getattr(found, part)
    return found
