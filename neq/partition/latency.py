"""The latency of a network on two devices, from the times of their blocks and of the link between them.

    T = stem + sum over segments max(device 0, device 1) + sum over syncs (alpha + bytes / beta) + head

Both devices compute the stem, and wait for the slower; the head is computed on device 0. A plain network runs
on device 0 alone.

Source: Kang et al., "SyncNAS", LCTES 2023, as reconstructed: its tables were not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from neq.partition.costs import CLASSES, sent_bytes
from neq.partition.model import Block, Model


class Device(Protocol):
    """The times of a device, such as a `DeviceProfile`; all in milliseconds, for one image."""

    def block_ms(self, block: Block, /) -> float:
        """Of a block."""

    def stem_ms(self, side: int, kernel: int, stride: int, in_channels: int, out_channels: int, /) -> float:
        """Of a stem."""

    def head_ms(self, side: int, in_channels: int, features: int, classes: int, /) -> float:
        """Of a head with its classifier."""


class Link(Protocol):
    """The time of a link between two devices, such as a `LinkProfile`."""

    def transfer_ms(self, count: int, /) -> float:
        """Milliseconds until each has the `count` bytes of the other."""


@dataclass(frozen=True)
class Latency:
    """The parts of a network's latency, in milliseconds.

    Args:
        stem, head: of these.
        segments: the time of each device, one or two, segment by segment.
        syncs: of the exchanges behind the segments; empty for one device.
    """

    stem: float
    head: float
    segments: tuple[tuple[float, ...], ...]
    syncs: tuple[float, ...]

    @property
    def total(self) -> float:
        """T."""
        return self.stem + sum(map(max, self.segments)) + sum(self.syncs) + self.head


def latency(
    model: Model, devices: Sequence[Device], link: Link | None = None, classes: int = CLASSES
) -> Latency:
    """The latency of a network for one image.

    Args:
        model: at the image size that the devices were measured with.
        devices: for each branch; more than the model has branches are left out.
        link: between them; None for a plain network.
        classes: outputs of the classifier.

    Raises:
        UserError: a device has not measured a part of it.
    """
    used = devices[: model.branches]
    segments = tuple(
        tuple(sum(map(device.block_ms, model.blocks(branch, segment))) for branch, device in enumerate(used))
        for segment in model.segments
    )
    syncs: tuple[float, ...] = ()
    if link is not None and model.sync is not None:
        sizes = (max(sent_bytes(model, segment, branch) for branch in (0, 1)) for segment in model.segments)
        syncs = tuple(map(link.transfer_ms, sizes))
    return Latency(stem_ms(model, used), head_ms(model, devices[0], classes), segments, syncs)


def stem_ms(model: Model, devices: Sequence[Device]) -> float:
    """The time of the stem on the slowest of the devices that compute it."""
    stem = model.stem
    sizes = (model.image_size, stem.kernel, stem.stride, stem.in_channels, stem.out_channels)
    return max(device.stem_ms(*sizes) for device in devices)


def head_ms(model: Model, device: Device, classes: int = CLASSES) -> float:
    """The time of the head on a device."""
    side = model.stages[-1][0][-1].out_side
    return device.head_ms(side, model.head.in_channels, model.head.out_channels, classes)
