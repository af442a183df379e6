"""A float network as the operations that int8 networks have, computed one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neq.int8.description import IMAGE, Add, Conv, MaxPool, Operation, Pool

EVERYWHERE = (-math.inf, math.inf)


@dataclass(eq=False)
class FloatOperation:
    """One step of a float network.

    Args:
        name: unique in the network.
        kind: the class of its int8 version.
        inputs: names of the operations whose results it takes, or IMAGE.
        weight: [O, I / groups, K, K], of a convolution.
        bias: [O], of a convolution.
        window: stride and groups of a convolution; kernel, stride and padding of max pooling.
        function: of a table.
        range: of the function's input, outside of which it is constant.
        limits: that the result is clamped to.
    """

    name: str
    kind: type[Operation]
    inputs: tuple[str, ...]
    weight: Tensor | None = None
    bias: Tensor | None = None
    window: tuple[int, ...] = ()
    function: Callable[[Tensor], Tensor] | None = None
    range: tuple[float, float] = EVERYWHERE
    limits: tuple[float, float] = EVERYWHERE

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result for float maps [B, C, H, W]."""
        out = self._before_limits(*inputs)
        return out if self.limits == EVERYWHERE else out.clamp(*self.limits)

    def _before_limits(self, *inputs: Tensor) -> Tensor:
        if self.kind is Conv:
            assert self.weight is not None
            stride, groups = self.window
            padding = (self.weight.shape[2] - 1) // 2
            return F.conv2d(inputs[0], self.weight, self.bias, stride, padding, groups=groups)
        if self.kind is MaxPool:
            kernel, stride, padding = self.window
            return F.max_pool2d(inputs[0], kernel, stride, padding)
        if self.kind is Pool:
            return inputs[0].mean((2, 3), keepdim=True)
        if self.function is not None:
            return self.function(inputs[0])
        return inputs[0] + inputs[1] if self.kind is Add else inputs[0] * inputs[1]


@dataclass
class FloatNetwork:
    """A float network that is computed operation by operation.

    Args:
        operations: of the body, in order.
        head: the classifier, a 1x1 convolution.
    """

    operations: list[FloatOperation]
    head: FloatOperation

    @torch.no_grad()
    def run(self, images: Tensor, seen: Callable[[str, Tensor], None] = lambda name, out: None) -> Tensor:
        """The outputs [B, classes] for images [B, 3, H, W].

        Args:
            images: normalized.
            seen: is called with each operation's name and result.
        """
        results = {IMAGE: images}
        last: dict[str, int] = {}
        for number, each in enumerate((*self.operations, self.head)):
            last |= dict.fromkeys(each.inputs, number)
        for number, each in enumerate((*self.operations, self.head)):
            results[each.name] = each(*(results[name] for name in each.inputs))
            seen(each.name, results[each.name])
            for name in {*each.inputs}:
                if last[name] == number:
                    del results[name]
        return results[self.head.name].flatten(1)
