"""How large a network is, and what one image costs it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from neq.compression.packing import packed_bytes
from neq.results.report.costs import macs_of


@dataclass(frozen=True)
class Size:
    """The size of a network.

    Args:
        parameters: their number.
        macs: multiply-accumulates for one image.
        bytes: of its parameters and buffers.
        packed_bytes: where zeros and binary weights take a bit each.
    """

    parameters: int
    macs: int
    bytes: int
    packed_bytes: int


def size_of(network: nn.Module, image_size: int) -> Size:
    """The size of a network in eval mode.

    Args:
        network: on the CPU.
        image_size: pixels a side of the image that MACs are counted for.
    """
    state = network.state_dict().values()
    return Size(
        sum(parameter.numel() for parameter in network.parameters()),
        macs_of(network, image_size),
        sum(tensor.numel() * tensor.element_size() for tensor in state),
        packed_bytes(network),
    )
