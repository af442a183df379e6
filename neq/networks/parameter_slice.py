"""A part of a parameter: some of its slices along one axis, or all of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ParameterSlice:
    """Slices of a tensor along an axis.

    Args:
        index: int64 [n], ascending; none: the whole tensor.
        axis: 0 for output channels, 1 for input channels.
    """

    index: Tensor | None = None
    axis: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the tensor."""
        return self.index is None

    def on(self, device: torch.device) -> ParameterSlice:
        """The same part, its index on a device."""
        return self if self.index is None else ParameterSlice(self.index.to(device), self.axis)

    def take(self, whole: Tensor) -> Tensor:
        """A copy of this part of a tensor."""
        if self.index is None:
            return whole.clone()
        return whole.index_select(self.axis, self.index.to(whole.device))

    def put(self, whole: Tensor, values: Tensor) -> Tensor:
        """Writes values over this part of a tensor, in place; gives the tensor."""
        if self.index is None:
            return whole.copy_(values)
        return whole.index_copy_(self.axis, self.index.to(whole.device), values)

    def spread(self, values: Tensor, size: int) -> Tensor:
        """A whole tensor with these values here and zeros elsewhere.

        Args:
            values: of this part.
            size: of the whole along the axis.
        """
        if self.index is None:
            return values
        shape = list(values.shape)
        shape[self.axis] = size
        return self.put(values.new_zeros(shape), values)

    def same(self, other: ParameterSlice) -> bool:
        """Whether both are the same slices."""
        if self.index is None or other.index is None:
            return self.index is other.index
        return self.axis == other.axis and torch.equal(self.index.cpu(), other.index.cpu())
