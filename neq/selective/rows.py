"""Which rows of a layer's weight are chosen, and how a grouped convolution's gradient reaches only them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConvRows:
    """The chosen rows of a convolution, laid out so that one smaller convolution gives their gradient.

    The groups that hold a chosen row become the groups of that smaller convolution. Where they hold unequal
    numbers of chosen rows, the shorter ones are padded with zeros.

    Args:
        channels: chosen output channels, int64 [n], ascending.
        inputs: input channels that the chosen rows read, int64; none: all of them.
        slots: place of each chosen row in the padded layout, int64 [n]; none: no padding is needed.
        used_groups: groups of the smaller convolution.
        padded: output channels of the smaller convolution, used_groups * rows of the fullest group.
    """

    channels: Tensor
    inputs: Tensor | None
    slots: Tensor | None
    used_groups: int
    padded: int

    @classmethod
    def of(cls, channels: Tensor, out_channels: int, in_channels: int, groups: int) -> ConvRows:
        """The layout for some channels of a convolution."""
        if groups == 1:
            return cls(channels, None, None, 1, len(channels))
        group = channels // (out_channels // groups)
        used, slot_group, counts = group.unique(return_inverse=True, return_counts=True)
        fullest = int(counts.max())
        width = in_channels // groups
        inputs = (used[:, None] * width + torch.arange(width, device=channels.device)).flatten()
        slots = None
        if int(counts.min()) < fullest:
            first = counts.cumsum(0) - counts  # position of each group's first chosen row
            within = torch.arange(len(channels), device=channels.device) - first[slot_group]
            slots = slot_group * fullest + within
        return cls(channels, inputs, slots, len(used), len(used) * fullest)

    def read(self, x: Tensor) -> Tensor:
        """The part of an input [B, in, H, W] that the chosen rows' gradient needs."""
        return x if self.inputs is None else x.index_select(1, self.inputs)

    def gather(self, grad_output: Tensor) -> Tensor:
        """The part of an output gradient [B, out, H, W] that belongs to the chosen rows, padded."""
        chosen = grad_output.index_select(1, self.channels)
        if self.slots is None:
            return chosen
        shape = (chosen.shape[0], self.padded, *chosen.shape[2:])
        return chosen.new_zeros(shape).index_copy_(1, self.slots, chosen)
