"""Moving what trains to a point where the loss is higher, for the rest of a step.

    w' = w + radius * g / |g|,  g = dL/dw

Source: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
eq. 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

import torch
from torch import Tensor, nn


class Displacement:
    """What trains in a step; as a context, it is moved back at the end, to the same bits.

    Args:
        parameters: of the network that train.
        mean: of a tensor over the processes that share a batch; may change it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], mean: Callable[[Tensor], Tensor]) -> None:
        self._parameters, self._mean = list(parameters), mean
        self._values: list[Tensor] | None = None

    def __enter__(self) -> Self:
        return self

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        if self._values is not None:
            for parameter, value in zip(self._parameters, self._values, strict=True):
                parameter.copy_(value)

    def move(self, loss: Tensor, radius: float) -> None:
        """Moves them by the radius, up the gradient of a loss, whose graph is freed.

        Args:
            loss: [], of this process' share of the batch.
            radius: Euclidean, above 0, over all of them together.
        """
        if not self._parameters:
            return
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([each.reshape(-1) for each in found])
        del found  # with what is returned to, two copies of what trains are held at most
        gradient = self._mean(gradient)
        length = gradient.norm()
        if length == 0:
            return
        gradient *= radius / length
        if self._values is None:
            self._values = [parameter.detach().clone() for parameter in self._parameters]
        with torch.no_grad():
            parts = gradient.split([parameter.numel() for parameter in self._parameters])
            for parameter, part in zip(self._parameters, parts, strict=True):
                parameter.add_(part.view_as(parameter))
