"""The chosen output channels of a convolution, grouped ones included, and the gradient of their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neq.backward.geometry import Geometry


@dataclass(frozen=True)
class OutputChannels:
    """The chosen output channels C of a convolution, laid out so that one smaller one yields their gradient.

        dL/dW_CIKL = sum over B, P, Q of g_BCPQ x_BRHW    (shifted by K, L; R: the inputs of the groups in C)

    The groups that hold a chosen channel become the groups of that smaller convolution. Where they hold
    unequal numbers of chosen channels, the shorter ones are padded with zeros.

    Args:
        channels: C, int64 [n], ascending.
        inputs: R, the input channels that the chosen ones read, int64; None: all of them.
        slots: position of each chosen channel in the padded layout, int64 [n]; None: no padding is needed.
        used_groups: groups of the smaller convolution.
        padded: output channels of the smaller convolution: used_groups times those of the fullest group.
    """

    channels: Tensor
    inputs: Tensor | None
    slots: Tensor | None
    used_groups: int
    padded: int

    @classmethod
    def of(
        cls,
        channels: Tensor,
        out_channels: int,
        in_channels: int,
        groups: int,
        device: torch.device | str = "cpu",
    ) -> OutputChannels:
        """The layout for some channels of a convolution, its indices on a device.

        Args:
            channels: int64 [n], ascending, on the CPU.
            out_channels, in_channels, groups: of the convolution.
            device: of the maps that it will index.
        """
        if groups == 1:
            return cls(channels.to(device), None, None, 1, len(channels))
        group = channels // (out_channels // groups)
        used, slot_group, counts = group.unique(return_inverse=True, return_counts=True)
        fullest = int(counts.max())
        width = in_channels // groups
        inputs = (used[:, None] * width + torch.arange(width)).flatten()
        slots = None
        if int(counts.min()) < fullest:
            first = counts.cumsum(0) - counts  # position of each group's first chosen channel
            within = torch.arange(len(channels)) - first[slot_group]
            slots = (slot_group * fullest + within).to(device)
        return cls(channels.to(device), inputs.to(device), slots, len(used), len(used) * fullest)

    def read(self, x: Tensor) -> Tensor:
        """x_BRHW, the part of an input [B, I, H, W] that the gradient needs."""
        return x if self.inputs is None else pick_channels(x, self.inputs)

    def gradient(self, grad_output: Tensor, kept: Tensor, geometry: Geometry, shape: torch.Size) -> Tensor:
        """The gradient of the weights of the chosen output channels.

        Args:
            grad_output: of the convolution's result [B, O, P, Q].
            kept: what `read` returned.
            geometry: of the convolution.
            shape: of the gradient, [n, I / G, K, L].
        """
        like = empty_like_layout(kept, (self.padded, *shape[1:]))
        found = geometry.weight_gradient(self.gather(grad_output), kept, like, self.used_groups)
        return found if self.slots is None else found.index_select(0, self.slots)

    def scale(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """The gradient [n, I / G, K, L] times a factor of each output channel [O]."""
        return gradient * scale.index_select(0, self.channels).view(-1, 1, 1, 1)

    def gather(self, grad_output: Tensor) -> Tensor:
        """g_BCPQ, the part of an output gradient [B, O, P, Q] that belongs to the chosen channels, padded."""
        if self.slots is None:
            return pick_channels(grad_output, self.channels)
        batch, _, height, width = grad_output.shape
        padded = empty_like_layout(grad_output, (batch, self.padded, height, width)).zero_()
        padded[:, self.slots] = pick_channels(grad_output, self.channels)
        return padded


def pick_channels(x: Tensor, channels: Tensor) -> Tensor:
    """Some channels of a map [B, C, H, W], in its own memory layout.

    A plain index_select of a channels_last map is 10 times slower and returns the other layout.
    """
    if layout_of(x) is torch.contiguous_format:
        return x.index_select(1, channels)
    batch, count, height, width = x.shape
    flat = x.permute(0, 2, 3, 1).reshape(-1, count).index_select(1, channels)
    return flat.view(batch, height, width, -1).permute(0, 3, 1, 2)


def layout_of(x: Tensor) -> torch.memory_format:
    """channels_last where a map is stored that way and is not contiguous in the plain layout too."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def empty_like_layout(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An uninitialized map of another shape, of the type, device and layout of x."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))
