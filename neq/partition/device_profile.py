"""The measured times of a device and of the link to another one: tables that the latency model reads.

A block's time is a function of its width `expanded`, measured at a few widths for each shape: linear between
them, and beyond them as at the nearest two, never below 0. A block that does not expand (expanded = in) has
one convolution less, and a time of its own.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from neq.config.explain import expected
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, shown

FORMAT = 1


class BlockLike(Protocol):
    """What of a block its time depends on."""

    @property
    def side(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def expanded(self) -> int: ...
    @property
    def out_channels(self) -> int: ...


@dataclass(frozen=True)
class BlockShape:
    """A block but for its width.

    Args:
        side: of its input map, pixels.
        kernel, stride: of its depthwise convolution.
        in_channels, out_channels: of the block.
    """

    side: int
    kernel: int
    stride: int
    in_channels: int
    out_channels: int

    @classmethod
    def of(cls, block: BlockLike) -> BlockShape:
        """That of a block."""
        return cls(block.side, block.kernel, block.stride, block.in_channels, block.out_channels)

    def __str__(self) -> str:
        return (
            f"{self.in_channels}-{self.out_channels} k{self.kernel} stride {self.stride} "
            f"at {self.side} x {self.side}"
        )


@dataclass(frozen=True)
class BlockTimes:
    """The times of the blocks of one shape.

    Args:
        shape: of all of them.
        widths: (expanded, milliseconds) of blocks that expand, two or more, widths rising, times not falling.
        plain_ms: of the block with expanded = in, without an expansion; None: not measured, taken as one
            with it.
    """

    shape: BlockShape
    widths: tuple[tuple[int, float], ...]
    plain_ms: float | None = None

    def at(self, expanded: int) -> float:
        """Milliseconds at a width."""
        if expanded == self.shape.in_channels and self.plain_ms is not None:
            return self.plain_ms
        right = min(max(bisect_right(self.widths, (expanded, float("inf"))), 1), len(self.widths) - 1)
        (low, low_ms), (high, high_ms) = self.widths[right - 1 : right + 1]
        return max(0.0, low_ms + (high_ms - low_ms) * (expanded - low) / (high - low))


@dataclass(frozen=True)
class StemTime:
    """The time of a stem: a convolution of the image, its batch norm and activation.

    Args:
        side: of the image, pixels.
        kernel, stride, in_channels, out_channels: of the convolution.
        ms: milliseconds.
    """

    side: int
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    ms: float


@dataclass(frozen=True)
class HeadTime:
    """The time of a head: a 1 x 1 convolution, the mean over the map, and the classifier.

    Args:
        side: of its input map, pixels.
        in_channels, features: of the convolution.
        classes: of the classifier.
        ms: milliseconds.
    """

    side: int
    in_channels: int
    features: int
    classes: int
    ms: float


@dataclass(frozen=True)
class NetworkTime:
    """A whole network beside the sum of the table's times for its parts.

    Args:
        name: of the network.
        whole_ms, parts_ms: milliseconds.
    """

    name: str
    whole_ms: float
    parts_ms: float


@dataclass(frozen=True)
class LinkProfile:
    """A link between two devices: n bytes take alpha + n / beta, both ways at once.

    Args:
        alpha_ms: milliseconds of the smallest exchange.
        bytes_per_ms: beta.
        measured: (bytes, milliseconds) that it is fitted to.
        peer: the address of the other device.
    """

    alpha_ms: float
    bytes_per_ms: float
    measured: tuple[tuple[int, float], ...] = ()
    peer: str = ""

    def transfer_ms(self, count: int) -> float:
        """Milliseconds that an exchange takes.

        Args:
            count: bytes that each of the two sends.
        """
        return self.alpha_ms + count / self.bytes_per_ms


@dataclass(frozen=True)
class DeviceProfile:
    """The times of a device, for a batch of one image, float32, one thread.

    Args:
        name: of the device, as the user calls it.
        image_size: of the images, pixels; the sides in the tables are those that they have at it.
        blocks, stems, heads: the tables.
        environment: processor, threads, versions (`neq.runs.environment`).
        clock: `wall`, or `cpu` where the device was busy and the processor's time counts.
        busy: the share of the time of its samples in which the processor did something else.
        folded: whether batch norms are folded into convolutions, as they are when deployed.
        networks: whole networks, measured in turns with the blocks.
        link: to the other device; None: not measured.
        date: of the measurement, ISO 8601.
    """

    name: str
    image_size: int
    blocks: tuple[BlockTimes, ...]
    stems: tuple[StemTime, ...]
    heads: tuple[HeadTime, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    clock: str = "wall"
    busy: float = 0.0
    folded: bool = True
    networks: tuple[NetworkTime, ...] = ()
    link: LinkProfile | None = None
    date: str = ""

    def block_ms(self, block: BlockLike) -> float:
        """Milliseconds of a block.

        Raises:
            UserError: no block of its shape was measured.
        """
        shape = BlockShape.of(block)
        times = self._blocks.get(shape)
        if times is None:
            raise self._missing(f"block {shape}")
        return times.at(block.expanded)

    def stem_ms(self, side: int, kernel: int, stride: int, in_channels: int, out_channels: int) -> float:
        """Milliseconds of a stem; arguments as of `StemTime`.

        Raises:
            UserError: it was not measured.
        """
        found = self._stems.get((side, kernel, stride, in_channels, out_channels))
        if found is None:
            what = f"stem {in_channels}-{out_channels} k{kernel} stride {stride} at {side} x {side}"
            raise self._missing(what)
        return found

    def head_ms(self, side: int, in_channels: int, features: int, classes: int) -> float:
        """Milliseconds of a head; arguments as of `HeadTime`.

        Raises:
            UserError: it was not measured.
        """
        found = self._heads.get((side, in_channels, features, classes))
        if found is None:
            what = f"head {in_channels}-{features} at {side} x {side} with {classes} classes"
            raise self._missing(what)
        return found

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        write_text(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> DeviceProfile:
        """Reads what `write` wrote.

        Raises:
            UserError: the file cannot be read, or is no profile of this version.
        """
        from pydantic import TypeAdapter, ValidationError

        content = read_object(path)
        again = "measure it again with neq partition profile"
        if content.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no device profile of this version; {again}")
        try:
            found = TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
            found.check()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            what = f"{place} {shown(first['input'])}: {expected(first)}"
        except ValueError as error:
            what = str(error)
        else:
            return found
        raise UserError(f"{path} is no device profile ({what}); {again}")

    def check(self) -> None:
        """Checks what no type says.

        Raises:
            ValueError: a time, a size or an order that cannot be.
        """
        if self.image_size < 1 or self.clock not in ("wall", "cpu") or not 0 <= self.busy < 1:
            raise ValueError(f"image size {self.image_size}, clock {shown(self.clock)}, busy {self.busy}")
        if not self.blocks:
            raise ValueError("it has no blocks")
        for times in self.blocks:
            widths = [width for width, _ in times.widths]
            milliseconds = [ms for _, ms in times.widths]
            if len(widths) < 2 or widths != sorted(set(widths)) or widths[0] < 1:
                raise ValueError(f"block {times.shape} has the widths {shown(widths)}; two or more that rise")
            if milliseconds != sorted(milliseconds):
                raise ValueError(f"block {times.shape} has times that fall as it gets wider")
            plain = () if times.plain_ms is None else (times.plain_ms,)
            _check_times(f"block {times.shape}", *milliseconds, *plain)
            _check_sizes(f"block {times.shape}", *vars(times.shape).values())
        for name, ends in (("stem", self.stems), ("head", self.heads)):
            for end in ends:
                *sizes, ms = vars(end).values()
                _check_times(name, ms)
                _check_sizes(name, *sizes)
        tables = (self._blocks, self.blocks), (self._stems, self.stems), (self._heads, self.heads)
        if any(len(table) != len(rows) for table, rows in tables):
            raise ValueError("the same part is in it twice")
        for network in self.networks:
            _check_times(f"network {shown(network.name)}", network.whole_ms, network.parts_ms)
        if self.link is not None:
            if not 0 <= self.link.alpha_ms < float("inf") or not 0 < self.link.bytes_per_ms < float("inf"):
                raise ValueError(f"link of {self.link.alpha_ms} ms, {self.link.bytes_per_ms} bytes per ms")
            _check_times("link", *(ms for _, ms in self.link.measured))

    @cached_property
    def _blocks(self) -> dict[BlockShape, BlockTimes]:
        return {times.shape: times for times in self.blocks}

    @cached_property
    def _stems(self) -> dict[tuple[int, ...], float]:
        return {(e.side, e.kernel, e.stride, e.in_channels, e.out_channels): e.ms for e in self.stems}

    @cached_property
    def _heads(self) -> dict[tuple[int, ...], float]:
        return {(e.side, e.in_channels, e.features, e.classes): e.ms for e in self.heads}

    def _missing(self, what: str) -> UserError:
        return UserError(
            f"profile {shown(self.name)} (images of {self.image_size} px) has no {what}; measure a network "
            "that has it with neq partition profile --models"
        )


def _check_times(what: str, *milliseconds: float) -> None:
    for each in milliseconds:
        if not 0 < each < float("inf"):
            raise ValueError(f"{what} takes {each} ms")


def _check_sizes(what: str, *sizes: int) -> None:
    for each in sizes:
        if each < 1:
            raise ValueError(f"{what} has a size of {each}")
