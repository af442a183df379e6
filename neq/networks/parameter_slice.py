"""A slice of a parameter: some of its channels along one axis, or all of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


@dataclass(frozen=True, eq=False)
class ParameterSlice:
    """Some channels of a tensor along an axis, or all of it.

    Args:
        index: int64 [n], ascending; None: the whole tensor.
        axis: 0 for output channels, 1 for input channels.
    """

    index: Tensor | None = None
    axis: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the tensor."""
        return self.index is None

    def on(self, device: torch.device) -> ParameterSlice:
        """The same slice, its index on a device."""
        return self if self.index is None else ParameterSlice(self.index.to(device), self.axis)

    def take(self, whole: Tensor) -> Tensor:
        """A copy of this slice of a tensor."""
        if self.index is None:
            return whole.clone()
        if isinstance(whole, FakeTensor):  # no values to pick, and making a fake of each index takes longest
            shape = list(whole.shape)
            shape[self.axis] = len(self.index)
            return whole.new_empty(shape)
        return whole.index_select(self.axis, self.index.to(whole.device))

    def put(self, whole: Tensor, values: Tensor) -> Tensor:
        """Writes values over this slice of a tensor, in place, and returns the tensor."""
        if self.index is None:
            return whole.copy_(values)
        return whole.index_copy_(self.axis, self.index.to(whole.device), values)

    def spread(self, values: Tensor, size: int) -> Tensor:
        """A whole tensor with these values here and zeros elsewhere.

        Args:
            values: of this slice.
            size: of the whole tensor along the axis.
        """
        if self.index is None:
            return values
        shape = list(values.shape)
        shape[self.axis] = size
        return self.put(values.new_zeros(shape), values)

    def same(self, other: ParameterSlice) -> bool:
        """Whether both are the same slice."""
        if self.index is None or other.index is None:
            return self.index is other.index
        return self.axis == other.axis and torch.equal(self.index.cpu(), other.index.cpu())


def named_tensor(network: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of a network by its name.

    Raises:
        AttributeError: the network has none of that name.
    """
    module_name, _, key = name.rpartition(".")
    tensor = getattr(network.get_submodule(module_name), key)
    if not isinstance(tensor, Tensor):
        raise AttributeError(f"{name} is not a tensor")
    return tensor
