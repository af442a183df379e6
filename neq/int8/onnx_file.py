"""Int8 networks as ONNX in QDQ form: real operators between QuantizeLinear and DequantizeLinear.

Each operation computes with the real values of its codes, and QuantizeLinear rounds half to even and clamps.
Runtimes replace such patterns by integer operators. Weights are int8 with a scale for each output channel,
biases int32.

Source: ONNX operators QuantizeLinear and DequantizeLinear; onnxruntime, "Quantize ONNX models".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neq.int8.description import (
    IMAGE,
    LOWEST,
    Add,
    Conv,
    Description,
    Linear,
    MaxPool,
    Multiply,
    Operation,
    Pool,
    Quantization,
    Table,
)
from neq.int8.network import Int8Network
from neq.results.onnx_file import INPUT, OUTPUT, Exporter, register_exporter
from neq.utils.errors import UserError

OPSET, _IR_VERSION = 17, 8
# Most that an output may differ, as a share of the largest one. Float32 sums round to another code than ours
# about once in 100,000 values, and layer by layer this spreads: to 4 - 8 % in the published networks.
TOLERANCE = 0.25
_NODES = {
    **{Conv: "Conv", Add: "Add", Multiply: "Mul", Pool: "GlobalAveragePool", MaxPool: "MaxPool"},
    Table: "Gather",
}


def onnx_model(network: Description, image_size: int) -> Any:
    """The onnx.ModelProto of a network: images [batch, 3, S, S] -> logits [batch, classes], float32.

    The codes of each operation are the tensor of its name.

    Args:
        network: its operations.
        image_size: S.

    Raises:
        UserError: an operation that has no QDQ form here.
    """
    from onnx import TensorProto, helper

    graph, head = _Graph(network), network.head
    graph.quantize(INPUT, IMAGE, network.image)
    for each in network.operations:
        graph.operation(each)
    if isinstance(head, Linear):
        features = graph.node("Flatten", f"{head.name}.features", graph.real(head.inputs[0]))
        tensors = (graph.constant(f"{head.name}.{key}", getattr(head, key)) for key in ("weight", "bias"))
        graph.node("Gemm", OUTPUT, features, *tensors, transB=1)
    else:
        graph.operation(head)
        graph.node("Flatten", OUTPUT, graph.real(head.name))
    shapes: tuple[tuple[str, list[str | int | None]], ...]
    shapes = (INPUT, ["batch", 3, image_size, image_size]), (OUTPUT, ["batch", len(head.weight)])
    images, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in shapes)
    made = helper.make_graph(graph.nodes, "neq", [images], [logits], graph.constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(made, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="neq")


class _Graph:
    """The nodes and constants of a network so far."""

    def __init__(self, network: Description) -> None:
        self._network = network
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def operation(self, operation: Operation) -> None:
        """Adds an operation between its real inputs and the codes of its result."""
        kind = _NODES.get(type(operation))
        if kind is None:
            raise UserError(
                f"{operation.name} is a {type(operation).__name__}, which has no ONNX form here; allowed: "
                f"{', '.join(each.__name__ for each in _NODES)}"
            )
        if isinstance(operation, Table):
            self._look_up(operation)
            return
        inputs = [self.real(name) for name in operation.inputs]
        shape: dict[str, Any] = {}
        if isinstance(operation, Conv):
            scales = operation.scales.double()
            bias_scales = scales * self._network.quantization(operation.inputs[0]).scale
            inputs.append(self._stored(f"{operation.name}.weight", operation.weight, scales))
            inputs.append(self._stored(f"{operation.name}.bias", operation.bias, bias_scales))
            side = operation.weight.shape[2]
            shape = {
                "group": operation.groups,
                "strides": [operation.stride] * 2,
                "pads": [(side - 1) // 2] * 4,
            }
        elif isinstance(operation, MaxPool):
            window = {"kernel_shape": operation.kernel, "strides": operation.stride}
            shape = {**{key: [side] * 2 for key, side in window.items()}, "pads": [operation.padding] * 4}
        self.quantize(
            self.node(kind, f"{operation.name}.result", *inputs, **shape), operation.name, operation.output
        )

    def _look_up(self, table: Table) -> None:
        """Adds the codes that a table has for others."""
        from onnx import TensorProto

        codes = self.node("Cast", f"{table.name}.cast", *table.inputs, to=TensorProto.INT64)
        first = self.constant(f"{table.name}.first", np.array(-LOWEST, np.int64))
        place = self.node("Add", f"{table.name}.place", codes, first)
        self.node("Gather", table.name, self.constant(f"{table.name}.table", table.table), place)

    def real(self, name: str) -> str:
        """The real values of codes; each reader has a node of its own, as runtimes expect."""
        values = self._quantization(self._network.quantization(name), name)
        return self.node("DequantizeLinear", f"{name}.real.{len(self.nodes)}", name, *values)

    def quantize(self, real: str, codes: str, quantization: Quantization) -> None:
        """Adds the codes of real values."""
        self.node("QuantizeLinear", codes, real, *self._quantization(quantization, codes))

    def node(self, kind: str, output: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Tensor | np.ndarray) -> str:
        """Adds a constant, unless it is there; returns its name."""
        from onnx import numpy_helper

        if all(each.name != name for each in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _quantization(self, quantization: Quantization, name: str) -> tuple[str, str]:
        """The constants with scale and zero point of codes."""
        scale = self.constant(f"{name}.scale", np.array(quantization.scale, np.float32))
        return scale, self.constant(f"{name}.zero", np.array(quantization.zero, np.int8))

    def _stored(self, name: str, codes: Tensor, scales: Tensor) -> str:
        """The real values of a weight or a bias, which is stored as codes with a scale a channel."""
        given = self.constant(name, codes), self.constant(f"{name}.scales", scales.float())
        zeros = self.constant(f"{name}.zeros", torch.zeros(len(codes), dtype=codes.dtype))
        return self.node("DequantizeLinear", f"{name}.real", *given, zeros, axis=0)


def _export(network: nn.Module, images: Tensor) -> Any:
    assert isinstance(network, Int8Network)
    return onnx_model(network.describe(), images.shape[-1])


register_exporter(Int8Network, Exporter(_export, TOLERANCE, as_written=True))
