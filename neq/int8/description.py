"""What an int8 network consists of, as plain values: its operations in order, their weights and scales.

A code q stands for the real value (q - zero) * scale. Codes of activations are int8, those of biases int32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# The image, as an operation's input.
IMAGE = "image"
LOWEST, HIGHEST = -128, 127
# Codes of weights are symmetric; biases are as wide as the sums that they are added to.
LARGEST_WEIGHT = 127
LOWEST_BIAS, HIGHEST_BIAS = -(2**31), 2**31 - 1
CODES = HIGHEST - LOWEST + 1
# Of max pooling, whose backward keeps places within a window in two bytes.
LARGEST_WINDOW = 7


@dataclass(frozen=True)
class Quantization:
    """Scale and zero point of an activation's codes.

    Raises:
        ValueError: a scale that is not a positive number, or a zero point that is no code.
    """

    scale: float
    zero: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale {self.scale} is not a positive number")
        if not LOWEST <= self.zero <= HIGHEST:
            raise ValueError(f"zero point {self.zero} is not in {LOWEST} .. {HIGHEST}")


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of a network.

    Args:
        name: unique in the network.
        inputs: names of the operations whose results it takes, or IMAGE.
        output: quantization of its result.
    """

    name: str
    inputs: tuple[str, ...]
    output: Quantization


@dataclass(frozen=True, eq=False)
class Conv(Operation):
    """A convolution, padded by (K - 1) // 2; its activation is the clamp to the codes' range.

    Args:
        weight: codes, int8 [O, I / groups, K, K], -127 .. 127.
        bias: codes, int32 [O]; the scale of channel o is scales[o] times that of the input.
        scales: of the weight, float32 [O]; those of dead channels are tiny.

    Raises:
        ValueError: shapes, types or values that are not those.
    """

    weight: Tensor
    bias: Tensor
    scales: Tensor
    stride: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        problem = next(self._problems(), None)
        if problem is not None:
            raise ValueError(f"{self.name}: {problem}")

    def _problems(self) -> Iterator[str]:
        for key, dtype in (("weight", torch.int8), ("bias", torch.int32), ("scales", torch.float32)):
            if (found := getattr(self, key)).dtype != dtype:
                yield f"{key} is {found.dtype}, not {dtype}"
        shape = tuple(self.weight.shape)
        if len(shape) != 4 or shape[2] != shape[3] or min(shape) < 1:
            yield f"weight has the shape {shape}, not [out, in / groups, kernel, kernel]"
        if self.groups < 1 or shape[0] % self.groups or self.stride < 1:
            yield f"{self.groups} groups and stride {self.stride} do not fit {shape[0]} channels"
        for key in ("bias", "scales"):
            if (sides := tuple(getattr(self, key).shape)) != shape[:1]:
                yield f"{key} has the shape {sides}, not {shape[:1]}"
        if int(self.weight.min()) < -LARGEST_WEIGHT:
            yield f"weight has codes below {-LARGEST_WEIGHT}"
        if not bool((self.scales.isfinite() & (self.scales > 0)).all()):
            yield "scales are not all positive numbers"

    @property
    def in_channels(self) -> int:
        """I."""
        return self.weight.shape[1] * self.groups


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of two maps of one shape."""


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """The product of two maps of one shape, or of a map and a value for each channel, [B, C, 1, 1]."""


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """The mean over all positions, [B, C, 1, 1]; its codes are those of its input."""


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """The maximum in each window of K x K positions; its codes are those of its input.

    Args:
        kernel: K, up to 7.
        stride, padding: of the window, in positions.

    Raises:
        ValueError: values that no window has.
    """

    kernel: int
    stride: int
    padding: int = 0

    def __post_init__(self) -> None:
        if (
            not 1 <= self.kernel <= LARGEST_WINDOW
            or self.stride < 1
            or not 0 <= 2 * self.padding <= self.kernel
        ):
            raise ValueError(f"{self.name}: kernel, stride and padding are those of no window")


@dataclass(frozen=True, eq=False)
class Table(Operation):
    """A function of each value, by its results for all codes: code q becomes table[q + 128].

    Args:
        table: codes, int8 [256].
        slopes: of the function in units of codes, which the gradient is multiplied by, float32 [256].

    Raises:
        ValueError: shapes, types or values that are not those.
    """

    table: Tensor
    slopes: Tensor

    def __post_init__(self) -> None:
        for key, dtype in (("table", torch.int8), ("slopes", torch.float32)):
            found = getattr(self, key)
            if found.dtype != dtype or found.shape != (CODES,):
                raise ValueError(
                    f"{self.name}: {key} is {found.dtype} {tuple(found.shape)}, not {dtype} (256,)"
                )
        if not bool(self.slopes.isfinite().all()):
            raise ValueError(f"{self.name}: slopes are not finite")


@dataclass(frozen=True, eq=False)
class Linear:
    """A classifier in floating point, on the real values of a map of one position.

    Args:
        name: unique in the network.
        inputs: the name of the last operation.
        weight: float32 [classes, C].
        bias: float32 [classes].

    Raises:
        ValueError: shapes, types or values that are not those.
    """

    name: str
    inputs: tuple[str, ...]
    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        tensors = self.weight, self.bias
        if self.weight.dim() != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(f"{self.name}: weight and bias are not [classes, channels] and [classes]")
        if any(each.dtype != torch.float32 or not bool(each.isfinite().all()) for each in tensors):
            raise ValueError(f"{self.name}: weight and bias are not finite float32 values")


@dataclass(frozen=True)
class Images:
    """The images that a network was made for; by default as of tiny-training's networks.

    Args:
        size: pixels a side.
        mean, std: that they are normalized by, for values in 0 .. 1.

    Raises:
        ValueError: values that no images have.
    """

    size: int = 128
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.size < 1 or not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"images of {self.size} px, mean {self.mean} and std {self.std} do not exist")


@dataclass(frozen=True)
class Description:
    """An int8 network: a body that ends with a map of one position, and its classifier.

    Args:
        image: quantization of the input.
        operations: of the body, in order.
        head: the classifier, which reads the last operation; a convolution of it is 1x1.
        images: that it was made for.
        classes: their names, in the order of the outputs; empty: not known.

    Raises:
        ValueError: operations that do not fit together.
    """

    image: Quantization
    operations: tuple[Operation, ...]
    head: Conv | Linear
    images: Images = Images()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Of each result: channels, and pixels of the image along a side of one pixel (0: all of them).
        found: dict[str, tuple[int, int]] = {IMAGE: (3, 1)}
        for each in (*self.operations, self.head):
            if each.name in found or not each.name or any(not part for part in each.name.split(".")):
                raise ValueError(f"{each.name!r}: a name is empty or given twice")
            for name in each.inputs:
                if name not in found:
                    raise ValueError(f"{each.name} reads {name!r}, which is no earlier operation")
            found[each.name] = _result(each, [found[name] for name in each.inputs])
            if isinstance(each, Pool | MaxPool) and self.quantization(each.inputs[0]) != each.output:
                raise ValueError(f"{each.name} changes scale or zero point")
        last = tuple(each.name for each in self.operations[-1:])
        if self.head.inputs != last or any(found[name][1] for name in last):
            raise ValueError("a body ends with a pooled map, which is what the classifier reads")
        if self.head.weight.shape[2:] not in ((), (1, 1)):
            raise ValueError("the classifier is not a 1x1 convolution")
        if len(self.classes) not in (0, len(self.head.weight)):
            raise ValueError(f"{len(self.classes)} classes have names, of {len(self.head.weight)}")

    @property
    def convs(self) -> tuple[Conv, ...]:
        """The convolutions of the body, in order."""
        return tuple(each for each in self.operations if isinstance(each, Conv))

    def quantization(self, name: str) -> Quantization:
        """The quantization of an operation's result, the classifier's too, or of the image."""
        quantized = (each for each in (*self.operations, self.head) if isinstance(each, Operation))
        return next((each.output for each in quantized if each.name == name), self.image)


def _result(operation: Operation | Linear, inputs: list[tuple[int, int]]) -> tuple[int, int]:
    """Channels and reduction of an operation's result, given those of its inputs."""
    if len(inputs) != (2 if isinstance(operation, Add | Multiply) else 1):
        raise ValueError(f"{operation.name} has {len(inputs)} inputs")
    channels, reduction = inputs[0]
    if isinstance(operation, Conv | Linear):
        needed = operation.in_channels if isinstance(operation, Conv) else operation.weight.shape[1]
        if needed != channels:
            raise ValueError(f"{operation.name} is for {needed} channels, its input has {channels}")
        channels = len(operation.weight)
    allowed = [inputs[0], (channels, 0)] if isinstance(operation, Multiply) else [inputs[0]]
    if inputs[-1] not in allowed:
        raise ValueError(f"the inputs of {operation.name} differ in shape")
    return channels, 0 if isinstance(operation, Pool) else reduction * getattr(operation, "stride", 1)
