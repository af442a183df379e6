"""An int8 network as a module: codes between its layers, a classifier in floating point."""

from __future__ import annotations

from torch import Tensor, nn

from neq.int8.conv import Int8Conv
from neq.int8.description import (
    IMAGE,
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
from neq.int8.float_weights import float_weights
from neq.int8.max_pool import Int8MaxPool
from neq.int8.modules import Int8Add, Int8Image, Int8Pool, QuantizedModule
from neq.int8.multiply import Int8Multiply
from neq.int8.table import Int8Table
from neq.utils.errors import UserError, shown


class Int8Network(nn.Module):
    """An int8 network that is called with normalized images and returns real outputs.

    Its layers are modules of the operations' names. What an operation returns is dropped after its last use.

    Args:
        network: what it computes; a classifier of codes becomes one in floating point, of the same values
            (`neq.int8.head` makes one of codes of it).

    Raises:
        UserError: an operation has a name that a module of a network cannot have.
    """

    def __init__(self, network: Description) -> None:
        super().__init__()
        self.images, self.classes = network.images, network.classes
        self.image = Int8Image(network.image)
        self.steps = [(each.name, each.inputs) for each in network.operations]
        for each in network.operations:
            inputs = tuple(network.quantization(name) for name in each.inputs)
            _put(self, each.name, _module(each, inputs))
        weights = float_weights(network)
        self.head = network.head.name
        weight, bias = (weights[f"{self.head}.{key}"] for key in ("weight", "bias"))
        classifier = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        classifier.weight, classifier.bias = nn.Parameter(weight), nn.Parameter(bias)
        _put(self, self.head, classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, normalized images [B, 3, H, W]. Returns: [B, classes]."""
        results = {IMAGE: self.image(x)}
        last = {name: number for number, (_, inputs) in enumerate(self.steps) for name in inputs}
        for number, (name, inputs) in enumerate(self.steps):
            results[name] = self.get_submodule(name)(*(results[each] for each in inputs))
            for each in set(inputs):
                if last[each] == number:
                    del results[each]
        (pooled, _), head = self.steps[-1], self.get_submodule(self.head)
        if isinstance(head, Int8Conv):
            return (head(results[pooled]) * head.output.scale).flatten(1)
        outputs: Tensor = head((results[pooled] * self.quantization(pooled).scale).flatten(1))
        return outputs

    def get_classifier(self) -> nn.Module:
        """The classifier, by the name that timm's networks have for it."""
        return self.get_submodule(self.head)

    def quantization(self, name: str) -> Quantization:
        """The quantization of an operation's result."""
        return self._quantized(name).output

    def describe(self) -> Description:
        """The network with the codes that it has now, and its classifier."""
        operations = tuple(self._operation(name, inputs) for name, inputs in self.steps)
        classifier, inputs = self.get_submodule(self.head), (operations[-1].name,)
        if isinstance(classifier, Int8Conv):
            head: Conv | Linear = self._conv(self.head, inputs, classifier)
        else:
            tensors = (getattr(classifier, key).detach().float().clone() for key in ("weight", "bias"))
            head = Linear(self.head, inputs, *tensors)
        classes = self.classes if len(self.classes) == len(head.bias) else ()
        return Description(self.image.output, operations, head, self.images, classes)

    def _quantized(self, name: str) -> QuantizedModule:
        module = self.get_submodule(name)
        assert isinstance(module, QuantizedModule)
        return module

    def _operation(self, name: str, inputs: tuple[str, ...]) -> Operation:
        module = self._quantized(name)
        given = name, inputs, module.output
        match module:
            case Int8Conv():
                return self._conv(name, inputs, module)
            case Int8Table():
                return Table(*given, module.table.clone(), module.slopes.clone())
            case Int8MaxPool():
                return MaxPool(*given, module.kernel, module.stride, module.padding)
        plain = next(kind for kind, made in _PLAIN.items() if type(module) is made)
        return plain(*given)

    def _conv(self, name: str, inputs: tuple[str, ...], module: Int8Conv) -> Conv:
        stride, groups = module.geometry.stride[0], module.geometry.groups
        return Conv(name, inputs, module.output, *module.codes(), module.scales.clone(), stride, groups)


# Operations that consist of their inputs and the quantization of their result.
_PLAIN = {Add: Int8Add, Multiply: Int8Multiply, Pool: Int8Pool}


def set_exact(network: nn.Module, exact: bool) -> None:
    """Whether all sums of a network's int8 convolutions are formed in float64."""
    for module in network.modules():
        if isinstance(module, Int8Conv):
            module.exact = exact


def _module(operation: Operation, inputs: tuple[Quantization, ...]) -> nn.Module:
    match operation:
        case Conv():
            return Int8Conv(operation, inputs[0])
        case Table():
            return Int8Table(operation, inputs[0])
        case MaxPool():
            return Int8MaxPool(operation, inputs[0])
    return _PLAIN[type(operation)](inputs, operation.output)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    """Adds a module under a name with dots, and what has to be above it."""
    *above, last = name.split(".")
    for part in above:
        if part not in root._modules:
            _check_free(root, part, name)
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    _check_free(root, last, name)
    root.add_module(last, module)


def _check_free(root: nn.Module, part: str, name: str) -> None:
    if hasattr(root, part):
        raise UserError(f"the operation {shown(name)} of an int8 network has a name that is taken; rename it")
