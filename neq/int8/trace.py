"""Reads a float network's operations, its batch norms folded into convolutions.

They are those of the graph of `torch.export`, which are the same however a network spells them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from neq.int8.description import (
    IMAGE,
    LARGEST_WINDOW,
    Add,
    Conv,
    MaxPool,
    Multiply,
    Operation,
    Pool,
    Table,
)
from neq.int8.float_network import EVERYWHERE, FloatNetwork, FloatOperation
from neq.utils.errors import UserError, first_line
from neq.utils.eval_mode import eval_mode

# Functions that become tables -> the range in which they depend on their input.
FUNCTIONS = {
    "hardswish": (-3.0, math.inf),
    "hardsigmoid": (-3.0, 3.0),
    **dict.fromkeys(("silu", "sigmoid", "gelu", "tanh", "leaky_relu", "elu", "mish"), EVERYWHERE),
}
# Operations that leave the values of a pooled map as they are.
_SAME = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone", "alias")


def read_network(network: nn.Module, image_size: int) -> FloatNetwork:
    """The operations of a float network in eval mode, on the CPU.

    Args:
        network: images [B, 3, H, W] -> outputs [B, classes].
        image_size: pixels a side.

    Raises:
        UserError: it cannot be traced, has an operation that int8 networks do not have, or weights that are
            not finite.
    """
    images = torch.zeros(2, 3, image_size, image_size)
    try:
        with eval_mode(network):
            program = torch.export.export(network, (images,))
    except Exception as error:  # whatever a network does that a graph cannot hold fails in its own way
        raise UserError(
            f"{type(network).__name__} cannot be quantized: it cannot be traced ({first_line(error)}); "
            "take another network"
        ) from error
    try:
        return _Reader(program).read()
    except ValueError as error:
        raise UserError(
            f"{type(network).__name__} cannot be quantized: {error}; take another network"
        ) from None


@dataclass
class _Reader:
    """Reads the graph of an exported program node by node."""

    program: torch.export.ExportedProgram
    operations: dict[str, FloatOperation] = field(default_factory=dict)
    # The operation whose result a node is, by the node.
    results: dict[fx.Node, str] = field(default_factory=dict)
    # The operations whose result was read.
    was_read: set[str] = field(default_factory=set)

    def read(self) -> FloatNetwork:
        """The network."""
        signature, outputs = self.program.graph_signature, None
        if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
            raise ValueError("it has more than one input or output")
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name == signature.user_inputs[0]:
                self.results[node] = IMAGE
            elif node.op == "call_function":
                self.results[node] = self._result(node)
            elif node.op == "output":
                (outputs,) = node.args[0]
        name = self.results[outputs] if isinstance(outputs, fx.Node) else IMAGE
        head = self.operations.pop(name, None)
        if head is None or head.kind is not Conv or head.limits != EVERYWHERE or name in self.was_read:
            raise ValueError("it does not end with a linear layer")
        for each in (*self.operations.values(), head):
            for key in ("weight", "bias"):
                tensor = getattr(each, key)
                if tensor is not None and not bool(tensor.isfinite().all()):
                    raise ValueError(f"the {key} of {each.name} is not finite")
        return FloatNetwork([*self.operations.values()], head)

    def _result(self, node: fx.Node) -> str:
        """The name of the operation whose result a node is; a new one is kept."""
        kind = getattr(node.target, "_schema", None)
        called = str(node.target) if kind is None else kind.name.removeprefix("aten::")
        name, is_in_place = called.removesuffix("_"), called.endswith("_")
        given = _arguments(node)
        made = self._made(node, name, given, is_in_place)
        if made is None:
            raise ValueError(f"int8 networks have no operation {name} as in {_place(node)}")
        if is_in_place:
            self.results[given["self"]] = made  # what reads it later reads this
        return made

    def _made(self, node: fx.Node, name: str, given: dict[str, Any], is_in_place: bool) -> str | None:
        x = given.get("self", given.get("input"))
        if not isinstance(x, fx.Node) or x not in self.results:
            return None
        match name:
            case "conv2d":
                return self._conv(x, given)
            case "linear":
                weight = self._tensor(given["weight"])
                return self._new_conv(x, given, weight[:, :, None, None], (1, 1)) if _is_pooled(x) else None
            case "batch_norm":
                return self._folded(x, given)
            case "relu" | "relu6" | "hardtanh" | "clamp" | "clamp_min":
                return self._clamped(node, x, _limits(name, given), is_in_place)
            case "add" | "mul":
                return self._of_two(node, x, name, given)
            case "adaptive_avg_pool2d" if [*given["output_size"]] == [1, 1]:
                return self._new(node, Pool, x)
            case "mean" if (
                sorted(axis % 4 for axis in given.get("dim") or ()) == [2, 3] and len(_shape(x)) == 4
            ):
                return self._new(node, Pool, x)
            case "max_pool2d":
                window = _window(given)
                return None if window is None else self._new(node, MaxPool, x, window=window)
            case _ if name in FUNCTIONS:
                others = {key: value for key, value in given.items() if key != "self"}
                function = _function(name, others)
                return self._new(node, Table, x, function=function, range=FUNCTIONS[name])
            case "dropout" if not given["train"]:
                return self.results[x]
            case _ if name in _SAME and _is_pooled(x):
                return self.results[x]
        return None

    def _conv(self, x: fx.Node, given: dict[str, Any]) -> str:
        weight = self._tensor(given["weight"])
        kernel, (stride, other) = weight.shape[2], given["stride"]
        same = [(kernel - 1) // 2] * 2
        square = weight.shape[3] == kernel and stride == other
        if not square or [*given["padding"]] != same or max(given["dilation"]) > 1:
            raise ValueError(
                f"the convolution {self._name(given)} is of another kind than square, padded by "
                "(kernel - 1) // 2 and not dilated"
            )
        return self._new_conv(x, given, weight, (stride, given["groups"]))

    def _new_conv(self, x: fx.Node, given: dict[str, Any], weight: Tensor, window: tuple[int, int]) -> str:
        bias = weight.new_zeros(len(weight)) if given["bias"] is None else self._tensor(given["bias"])
        name = self._name(given)
        if name in self.operations:
            raise ValueError(f"its layer {name} is called twice")
        return self._keep(FloatOperation(name, Conv, self._read(x), weight, bias, window))

    def _folded(self, x: fx.Node, given: dict[str, Any]) -> str | None:
        """The convolution before a batch norm, which becomes part of it."""
        conv = self.operations.get(self.results[x])
        alone = len(x.users) == 1 and conv is not None and conv.name not in self.was_read
        if conv is None or not alone or conv.kind is not Conv or conv.limits != EVERYWHERE:
            return None
        if given["training"] or given["running_mean"] is None:
            return None
        mean, variance = (self._tensor(given[key]) for key in ("running_mean", "running_var"))
        scale, shift = (
            None if given[key] is None else self._tensor(given[key]) for key in ("weight", "bias")
        )
        assert conv.weight is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, mean, variance, given["eps"], scale, shift
        )
        conv.weight, conv.bias = weight.detach(), bias.detach()
        return conv.name

    def _clamped(self, node: fx.Node, x: fx.Node, limits: tuple[float, float], is_in_place: bool) -> str:
        """The operation before a clamp, which becomes part of it; where its result is read too, a table."""
        before = self.operations.get(self.results[x])
        alone = before is not None and before.name not in self.was_read and (is_in_place or len(x.users) == 1)
        if (
            before is not None
            and alone
            and before.kind in (Conv, Add, Multiply)
            and before.limits == EVERYWHERE
        ):
            before.limits = limits
            return before.name
        return self._new(node, Table, x, function=lambda values: values.clamp(*limits), range=limits)

    def _of_two(self, node: fx.Node, x: fx.Node, name: str, given: dict[str, Any]) -> str | None:
        other = given["other"]
        if not isinstance(other, fx.Node) or other not in self.results or given.get("alpha", 1) != 1:
            return None
        shapes = _shape(x), _shape(other)
        if name == "mul" and shapes[0] != shapes[1] and _is_pooled(x):
            x, other = other, x
        fits = shapes[0] == shapes[1] or (name == "mul" and _is_pooled(other) and len(_shape(other)) == 4)
        if not fits or shapes[0][1] != shapes[1][1]:
            return None
        return self._new(node, Add if name == "add" else Multiply, x, other)

    def _new(self, node: fx.Node, kind: type[Operation], *inputs: fx.Node, **more: Any) -> str:
        names = tuple(name for each in inputs for name in self._read(each))
        return self._keep(FloatOperation(node.name, kind, names, **more))

    def _read(self, x: fx.Node) -> tuple[str]:
        self.was_read.add(self.results[x])
        return (self.results[x],)

    def _keep(self, operation: FloatOperation) -> str:
        self.operations[operation.name] = operation
        return operation.name

    def _name(self, given: dict[str, Any]) -> str:
        return self._parameter(given["weight"]).removesuffix(".weight")

    def _parameter(self, node: Any) -> str:
        signature = self.program.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        if not isinstance(node, fx.Node) or node.name not in named:
            raise ValueError(f"the weight {node} is computed, not a parameter")
        return str(named[node.name])

    def _tensor(self, node: Any) -> Tensor:
        found = self.program.state_dict[self._parameter(node)]
        return found.detach().float()


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, defaults included."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    given = {each.name: each.default_value for each in schema.arguments if each.has_default_value()}
    given |= {each.name: value for each, value in zip(schema.arguments, node.args, strict=False)}
    return {**given, **node.kwargs}


def _limits(name: str, given: Mapping[str, Any]) -> tuple[float, float]:
    """The lowest and highest result of a clamp."""
    low, high = {"relu": (0, None), "relu6": (0, 6)}.get(name, (None, None))
    if name == "hardtanh":
        low, high = given["min_val"], given["max_val"]
    elif name.startswith("clamp"):
        low, high = given["min"], given.get("max")
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def _window(given: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Kernel, stride and padding of max pooling; None where int8 networks have no such window."""
    kernel, padding, dilation = ({*given[key]} for key in ("kernel_size", "padding", "dilation"))
    stride = {*given["stride"]} or kernel
    if max(map(len, (kernel, stride, padding))) > 1 or dilation != {1} or given["ceil_mode"]:
        return None
    return None if max(kernel) > LARGEST_WINDOW else (min(kernel), min(stride), min(padding))


def _function(name: str, others: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    called = getattr(torch.ops.aten, name)
    return lambda x: called(x, **others)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _is_pooled(node: fx.Node) -> bool:
    """Whether a node is [B, C] or [B, C, 1, 1]."""
    return _shape(node)[2:] in ((), (1, 1))


def _place(node: fx.Node) -> str:
    """The module that a node is computed in, with its class."""
    stack = [*(node.meta.get("nn_module_stack") or {"": ("", "")}).values()]
    path, kind = stack[-1]
    return f"{path or 'the network itself'} ({str(kind).rpartition('.')[2]})"
