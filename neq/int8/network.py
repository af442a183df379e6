"""An int8 network as a module: codes between its layers, a classifier in floating point."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from neq.int8.conv import Int8Conv
from neq.int8.description import IMAGE, Add, Conv, Description, Linear, Operation, Pool, Quantization
from neq.int8.float_weights import float_weights
from neq.int8.modules import Int8Add, Int8Image, Int8Pool, QuantizedModule


class Int8Network(nn.Module):
    """An int8 network that is called with normalized images and returns real outputs.

    Its layers are modules of the operations' names. What an operation returns is dropped after its last use.

    Args:
        network: what it computes; a classifier of codes becomes one in floating point, of the same values.
    """

    def __init__(self, network: Description) -> None:
        super().__init__()
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
        pool, _ = self.steps[-1]
        features = results[pool] * self._quantized(pool).output.scale
        return self.get_submodule(self.head)(features.flatten(1))

    def describe(self) -> Description:
        """The network with the codes that it has now, and its classifier."""
        operations = [self._operation(name, inputs) for name, inputs in self.steps]
        classifier = self.get_submodule(self.head)
        weight, bias = (getattr(classifier, key).detach().float().clone() for key in ("weight", "bias"))
        return Description(
            self.image.output, tuple(operations), Linear(self.head, (operations[-1].name,), weight, bias)
        )

    def _quantized(self, name: str) -> QuantizedModule:
        module = self.get_submodule(name)
        assert isinstance(module, QuantizedModule)
        return module

    def _operation(self, name: str, inputs: tuple[str, ...]) -> Operation:
        module = self._quantized(name)
        given = name, inputs, module.output
        if isinstance(module, Int8Conv):
            geometry = module.geometry
            return Conv(*given, *module.codes(), module.scales.clone(), geometry.stride[0], geometry.groups)
        return (Add if isinstance(module, Int8Add) else Pool)(*given)


def set_exact(network: nn.Module, exact: bool) -> None:
    """Whether all sums of a network's int8 convolutions are formed in float64."""
    for module in network.modules():
        if isinstance(module, Int8Conv):
            module.exact = exact


def _module(operation: Operation, inputs: Sequence[Quantization]) -> nn.Module:
    if isinstance(operation, Conv):
        return Int8Conv(operation, inputs[0])
    return (Int8Add if isinstance(operation, Add) else Int8Pool)(tuple(inputs), operation.output)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    """Adds a module under a name with dots, and what has to be above it."""
    *above, last = name.split(".")
    for part in above:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)
