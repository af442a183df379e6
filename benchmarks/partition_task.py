"""A small task on which all 1458 strategies can be trained: the digits, by networks of seven blocks.

Two modelled devices stand for measured ones: a time for each convolution and for each MAC, one device .7
times as fast as the other. Strategies are sized as for real devices. Many are trained at once, as one
computation of stacked tensors (`benchmarks.partition_stack`), since by itself each is a thousand small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from neq.data.digits import open_digits
from neq.partition import Block, Conv, Model
from neq.partition.costs import block_macs
from neq.partition.sizing import Sizing
from neq.utils.seeds import generator

IMAGE_SIZE, CLASSES = 8, 10
TRAINED = 500  # of the 1797 images; the others are evaluated
# Stages of one block: out channels, stride, expanded channels. No width that a branch can have, a multiple of
# 4, is that of a block's input, and no half of an output is: all blocks expand, and the base's alone skip.
ROWS = ((6, 1, 16), (10, 2, 32), (10, 1, 32), (14, 1, 32), (14, 1, 48), (22, 1, 48), (22, 1, 64))


def base() -> Model:
    """The plain network."""
    stem, stages = Conv(3, 6, 3, 2), []
    side, channels = IMAGE_SIZE // stem.stride, stem.out_channels
    for out, stride, width in ROWS:
        block = Block(side, 3, stride, channels, width, out)
        stages.append(((block,),))
        side, channels = block.out_side, out
    return Model("digits", "ReLU6", stem, Conv(channels, 32, 1, 1), 0.1, tuple(stages))


@dataclass(frozen=True)
class ModelledDevice:
    """A device whose times follow from MACs and from a time of each convolution.

    Args:
        macs_per_ms: its speed.
        fixed_ms: of a convolution of any size.
    """

    macs_per_ms: float
    fixed_ms: float

    def block_ms(self, block: Block) -> float:
        """Of a block."""
        return self.fixed_ms * (2 + block.expands) + block_macs(block) / self.macs_per_ms

    def stem_ms(self, side: int, kernel: int, stride: int, in_channels: int, out_channels: int) -> float:
        """Of a stem."""
        macs = in_channels * out_channels * (kernel * side // stride) ** 2
        return self.fixed_ms + macs / self.macs_per_ms

    def head_ms(self, side: int, in_channels: int, features: int, classes: int) -> float:
        """Of a head."""
        return 2 * self.fixed_ms + (in_channels * side**2 + classes) * features / self.macs_per_ms


@dataclass(frozen=True)
class ModelledLink:
    """A link between two devices."""

    alpha_ms: float
    bytes_per_ms: float

    def transfer_ms(self, count: int) -> float:
        """Of an exchange."""
        return self.alpha_ms + count / self.bytes_per_ms


DEVICES = (ModelledDevice(1e6, 0.0002), ModelledDevice(0.7e6, 0.0002))
LINK = ModelledLink(0.0018, 1e6)


def sizing() -> Sizing:
    """What sizes the strategies of the task."""
    return Sizing(base(), DEVICES, LINK, classes=CLASSES)


@cache
def images() -> tuple[Tensor, Tensor]:
    """All digits, float32 [1797, 3, 8, 8], and their labels, in an order of their own."""
    source = open_digits()
    order = torch.randperm(len(source.labels), generator=generator(0, "split"))
    pixels = torch.stack([source.image(int(number)) for number in order]).float() / 255
    return (pixels - 0.3) / 0.38, torch.from_numpy(source.labels)[order]
