"""The bytes of a file that stores a network as densely as its weights allow."""

from __future__ import annotations

import math

from torch import Tensor, nn

from neq.compression.binary import BinaryConv2d


def packed_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers where zeros, and binary weights, take a bit each.

    A tensor is stored as a bit a value and the values that are not zero where that is less than all of its
    values; binary weights as a bit each and a scale for each output channel.
    """
    binary = {
        f"{name}.weight": module.out_channels
        for name, module in network.named_modules()
        if isinstance(module, BinaryConv2d)
    }
    return sum(
        _bits(tensor) + binary[name] * tensor.element_size() if name in binary else _packed(tensor)
        for name, tensor in network.state_dict().items()
    )


def _packed(tensor: Tensor) -> int:
    plain = tensor.numel() * tensor.element_size()
    return min(plain, _bits(tensor) + int(tensor.count_nonzero()) * tensor.element_size())


def _bits(tensor: Tensor) -> int:
    """Bytes of a bit a value."""
    return math.ceil(tensor.numel() / 8)
