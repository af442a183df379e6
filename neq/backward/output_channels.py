"""The chosen output channels of a convolution, grouped ones included, and the gradient of their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neq.backward.geometry import Geometry


@dataclass(frozen=True)
class _EvenGroups:
    """Groups of a convolution that hold equally many chosen channels: one smaller convolution serves them.

    Args:
        channels: their chosen output channels, int64.
        inputs: positions in R of their input channels, int64; None: all of R.
        groups: how many they are.
    """

    channels: Tensor
    inputs: Tensor | None
    groups: int

    def gradient(self, grad_output: Tensor, kept: Tensor, geometry: Geometry, kernel: torch.Size) -> Tensor:
        """The gradient of the weights of their chosen channels [n, *kernel]."""
        x = kept if self.inputs is None else pick_channels(kept, self.inputs)
        like = empty_like_layout(kept, (len(self.channels), *kernel))
        return geometry.weight_gradient(pick_channels(grad_output, self.channels), x, like, self.groups)


@dataclass(frozen=True)
class OutputChannels:
    """The chosen output channels C of a convolution, laid out so that smaller ones yield their gradient.

        dL/dW_CIKL = sum over B, P, Q of g_BCPQ x_BRHW    (shifted by K, L; R: the inputs of the groups in C)

    The groups that hold a chosen channel become the groups of smaller convolutions: of one where all of them
    hold equally many, else of one for each number that they hold.

    Args:
        channels: C, int64 [n], ascending.
        inputs: R, the input channels that the chosen ones read, int64; None: all of them.
        even: the smaller convolutions.
        order: position in their channels, one behind the other, of each of C; None: it is that of C.
    """

    channels: Tensor
    inputs: Tensor | None
    even: tuple[_EvenGroups, ...]
    order: Tensor | None = None

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
        chosen = channels.to(device)
        if groups == 1:
            return cls(chosen, None, (_EvenGroups(chosen, None, 1),))
        group = channels // (out_channels // groups)
        used, place, counts = group.unique(return_inverse=True, return_counts=True)
        width = in_channels // groups
        inputs = _inputs_of(used, width).to(device)
        sizes = counts.unique().tolist()
        if len(sizes) == 1:
            return cls(chosen, inputs, (_EvenGroups(chosen, None, len(used)),))
        rows = [(counts[place] == size).nonzero().flatten() for size in sizes]
        even = tuple(
            _EvenGroups(channels[own].to(device), _inputs_of(which, width).to(device), len(which))
            for own, size in zip(rows, sizes, strict=True)
            for which in [(counts == size).nonzero().flatten()]
        )
        return cls(chosen, inputs, even, torch.cat(rows).argsort().to(device))

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
        found = [each.gradient(grad_output, kept, geometry, shape[1:]) for each in self.even]
        return found[0] if self.order is None else torch.cat(found).index_select(0, self.order)

    def scale(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """The gradient [n, I / G, K, L] times a factor of each output channel [O]."""
        return gradient * scale.index_select(0, self.channels).view(-1, 1, 1, 1)


def _inputs_of(groups: Tensor, width: int) -> Tensor:
    """The input channels of some groups of `width` inputs each."""
    return (groups[:, None] * width + torch.arange(width)).flatten()


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
