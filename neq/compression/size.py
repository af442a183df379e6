"""How large a network is, and what one image costs it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neq.compression.sparsity import packed_bytes


@dataclass(frozen=True)
class Size:
    """The size of a network.

    Args:
        parameters: their number.
        macs: multiply-accumulates of convs and Linears for one image.
        bytes: of its parameters and buffers.
        packed_bytes: where zeros take a bit each.
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
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, image_size, image_size))
    state = network.state_dict().values()
    return Size(
        sum(parameter.numel() for parameter in network.parameters()),
        counter.get_total_flops() // 2,
        sum(tensor.numel() * tensor.element_size() for tensor in state),
        packed_bytes(network),
    )
