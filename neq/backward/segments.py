"""A traced network in segments: all but the last keep their input alone, and run again in backward.

Segments meet where a single tensor passes from one to the next, at the input of a layer or norm: not inside a
residual branch, nor within what is fused. Running statistics are bit-identical to those without, and so are
gradients, except where a cut follows a norm and its activation: there the last digits differ, since the layer
behind reads the map itself, not one that is recomputed from the norm's input.

Source: Chen et al., "Training deep nets with sublinear memory cost", 2016 (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from neq.backward.image_draws import draws_again
from neq.utils.errors import UserError, unknown_name

Listener = Callable[[int, Tensor], None]


class Segments:
    """The segments of a network, called one after another in its place.

    Args:
        root: the view of the network that the graph's modules are found in.
        graph: of its forward.
        starts: the nodes that hold the input of each segment but the first, in order.
        again: returns a context for what runs again in backward.

    Attributes:
        listener: called before each segment with its number and input, in a network that computes and keeps
            what it would without cuts. None: segments are recomputed.
    """

    def __init__(
        self,
        root: nn.Module,
        graph: fx.Graph,
        starts: Sequence[fx.Node],
        again: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._forwards = [MethodType(each, root) for each in forwards_of(graph, starts)]
        self._again = again
        self.listener: Listener | None = None

    def __call__(self, x: Tensor) -> Any:
        """The network's result."""
        if self.listener is not None:
            return self._listened(self.listener, x)
        for forward in self._forwards[:-1]:
            x = checkpoint(_Segment(forward), x, use_reentrant=False, context_fn=self._contexts)
            _unmark(x)
        return _Segment(self._forwards[-1])(x)

    def _listened(self, listener: Listener, x: Tensor) -> Any:
        """The network's result, as if it were not cut: nothing is held but by what reads it."""
        passed = [x]
        del x
        for number, forward in enumerate(self._forwards):
            listener(number, passed[0])
            passed.append(forward(passed.pop()))
        return passed[0]

    def _contexts(self) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Around a segment in forward, and in backward."""
        return nullcontext(), self._repeated(draws_again())

    @contextmanager
    def _repeated(self, draws: AbstractContextManager[object]) -> Iterator[None]:
        with self._again(), draws:
            yield


class _Segment:
    """One segment, called in forward and again in backward."""

    def __init__(self, forward: Callable[[Tensor], Any]) -> None:
        self._forward = forward

    def __call__(self, x: Tensor) -> Any:
        version = x._version
        # An alias: what is marked on it in forward must not be found by the call in backward.
        out = self._forward(x.view_as(x))
        if x._version != version:
            raise UserError("a segment changes its input in place and cannot be recomputed; cut elsewhere")
        return out


def _unmark(x: object) -> None:
    """Drops what could recompute a segment's result: it is held as the next one's input."""
    for each in (x, x._base) if isinstance(x, Tensor) else ():
        if each is not None and hasattr(each, "_neq_recompute"):
            del each._neq_recompute


def norms_of(network: nn.Module, view: nn.Module) -> list[_NormBase]:
    """The norms of a network and of its view that may have running statistics, each once."""
    modules = dict.fromkeys((*network.modules(), *view.modules()))
    return [module for module in modules if isinstance(module, _NormBase)]


@contextmanager
def statistics_kept(norms: Sequence[_NormBase]) -> Iterator[None]:
    """Leaves running statistics as they are while a forward pass runs again.

    Args:
        norms: as `norms_of` returns them.
    """
    momenta = [norm.momentum for norm in norms]
    # A norm and its view have one count.
    shared = {id(count): count for norm in norms if (count := norm.num_batches_tracked) is not None}
    counts = [(count, count.clone()) for count in shared.values()]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        with torch.no_grad():
            for count, before in counts:
                count.copy_(before)


def cut_points(graph: fx.Graph, layers: Mapping[fx.Node, str]) -> dict[str, fx.Node]:
    """Where a graph can be cut: name of a layer or norm -> the node of its input, in the order of the graph.

    Nothing else that was computed before a cut is read behind it.

    Args:
        graph: of a network with one input.
        layers: the nodes that call layers and norms, and their names.
    """
    alone = crosses_alone(graph)
    place = {node: number for number, node in enumerate(graph.nodes)}
    found: dict[str, fx.Node] = {}
    for node, name in layers.items():
        source = node.args[0] if node.args else None
        if (
            not isinstance(source, fx.Node)
            or source.op in ("placeholder", "get_attr")
            or source in found.values()
        ):
            continue
        if source in alone:
            found[name] = source
    return dict(sorted(found.items(), key=lambda item: place[item[1]]))


def crosses_alone(graph: fx.Graph) -> set[fx.Node]:
    """The nodes behind which nothing else is read that was computed up to them; parameters do not count.

    Args:
        graph: of a network with one input.
    """
    place = {node: number for number, node in enumerate(graph.nodes)}
    reach, found = -1, set()
    for node, number in place.items():
        if node.op == "get_attr":
            continue
        if reach <= number:
            found.add(node)
        reach = max(reach, max((place[user] for user in node.users), default=number))
    return found


def cuts_at(points: Mapping[str, fx.Node], names: Sequence[str]) -> list[fx.Node]:
    """The nodes of named cut points, in the order of the graph.

    Raises:
        UserError: a layer before which the network cannot be cut.
    """
    for name in names:
        if name not in points:
            raise unknown_name("cut point", name, points)
    return [node for name, node in points.items() if name in names]


def forward_of(graph: fx.Graph) -> Callable[..., Any]:
    """The function that a graph computes; its first argument is the module whose submodules it calls."""
    read = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    return type(fx.GraphModule({name: nn.Identity() for name in read}, graph)).forward


def forwards_of(graph: fx.Graph, starts: Sequence[fx.Node]) -> list[Callable[..., Any]]:
    """The forward of each segment, a function of a view and of the segment's input.

    Args:
        graph: of a network's forward.
        starts: the nodes that hold the input of each segment but the first, in order.
    """
    forwards = []
    copies: dict[fx.Node, fx.Node] = {}
    part = fx.Graph()
    constants = [node for node in graph.nodes if node.op == "get_attr"]
    for node in graph.nodes:
        if node.op == "get_attr" and node in copies:
            continue
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node in starts:
            part.output(copies[node])
            forwards.append(forward_of(part))
            part, copies = fx.Graph(), {}
            copies[node] = part.placeholder("x")
            copies |= {each: part.node_copy(each) for each in constants}
    forwards.append(forward_of(part))
    return forwards
