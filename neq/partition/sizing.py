"""Channel sizing: the widths of two branches that are as fast as the plain network, or a share of its time.

SyncNAS did not publish how it sizes channels; this is a rule that its model files agree with. What stem, head
and syncs leave of the latency is shared among the blocks in proportion to the times of the base's blocks:

    B = scale T_base - stem - head - syncs,    r = B / sum of the base's block times

On each device a block gets the largest multiple of `STEP` channels whose time is within r times that of the
base's block (in a stage with `c`, of the block with half of its output). Then, segment by segment, blocks of
a device are widened by `STEP` as long as the device stays within r times the segment, those with the most
MACs for a millisecond first and each once before any twice; and narrowed where it is over, since a block
takes time at any width.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from neq.partition.branching import branch_stages, branched
from neq.partition.costs import CLASSES, block_macs
from neq.partition.latency import Device, Latency, Link, latency
from neq.partition.model import CHANNELS, Block, Model, Segment
from neq.partition.strategies import Sync, strategy_name

STEP = 4
# Of rounding in sums of times.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Sized:
    """A strategy with widths.

    Args:
        model: the branched network.
        share: r, of the time of a base's block that each device has for it.
        latency: in the latency model.
    """

    model: Model
    share: float
    latency: Latency


class Sizing:
    """Sizes the branches of one network, any number of times.

    Args:
        base: a plain network, at the image size that the devices were measured with.
        devices: of branches 0 and 1.
        link: between them.
        scale: of the base's latency on device 0.
        classes: outputs of the classifier.
        base_device: whose times the base's blocks have; None: device 0.

    Raises:
        UserError: a device has not measured a part of the base.
    """

    def __init__(
        self,
        base: Model,
        devices: Sequence[Device],
        link: Link,
        scale: float = 1.0,
        classes: int = CLASSES,
        base_device: Device | None = None,
    ) -> None:
        self.base, self.devices, self.link, self.classes = base, devices, link, classes
        self._base_device = base_device or devices[0]
        self.base_latency = latency(base, [self._base_device], classes=classes)
        self.limit = scale * self.base_latency.total
        self._times: dict[tuple[int, Block], _Times] = {}
        self._base_times: dict[Block, float] = {}

    def size(self, sync: Sync) -> Sized | None:
        """The widest network of a strategy within the latency; None where none fits.

        Raises:
            UserError: a device has not measured a block of it.
        """
        stages = branch_stages(self.base, sync)
        widths = [[[STEP] * len(blocks) for blocks in stages] for _ in self.devices]
        narrow = branched(self.base, sync, widths, strategy_name(sync))
        rest = latency(narrow, self.devices, self.link, self.classes)
        room = self.limit - rest.stem - rest.head - sum(rest.syncs)
        targets = [[self._base_ms(block) for block in blocks] for blocks in stages]
        share = room / sum(map(sum, targets))
        if share <= 0:
            return None
        for segment in narrow.segments:
            blocks = [block for stage in stages[segment.first : segment.stop] for block in stage]
            limits = [share * ms for stage in targets[segment.first : segment.stop] for ms in stage]
            for device, of_device in enumerate(widths):
                times = [self._of_width(device, block) for block in blocks]
                found = _fitted(times, limits)
                if found is None:
                    return None
                _put(of_device, segment, found)
        model = branched(self.base, sync, widths, strategy_name(sync))
        return Sized(model, share, latency(model, self.devices, self.link, self.classes))

    def _base_ms(self, block: Block) -> float:
        if block not in self._base_times:
            self._base_times[block] = self._base_device.block_ms(block)
        return self._base_times[block]

    def _of_width(self, device: int, block: Block) -> _Times:
        key = device, replace(block, expanded=block.in_channels)
        if key not in self._times:
            self._times[key] = _Times(self.devices[device], key[1])
        return self._times[key]


class _Times:
    """The times of a block on a device by width, each asked for once.

    A block as wide as its input does not expand and is faster than its neighbours; times of others grow.
    """

    def __init__(self, device: Device, block: Block) -> None:
        self._device, self._block = device, block
        self._known: dict[int, tuple[float, int]] = {}
        self._widths = [width for width in range(STEP, CHANNELS + 1, STEP) if width != block.in_channels]

    def at(self, width: int) -> tuple[float, int]:
        """Milliseconds and MACs at a width."""
        if width not in self._known:
            block = replace(self._block, expanded=width)
            self._known[width] = self._device.block_ms(block), block_macs(block)
        return self._known[width]

    def ms(self, width: int) -> float:
        """Milliseconds at a width."""
        return self.at(width)[0]

    def widest(self, limit: float) -> int:
        """The largest multiple of STEP within a time; STEP where none is."""
        plain = self._block.in_channels
        number = bisect_right(self._widths, limit, key=self.ms)
        width = self._widths[number - 1] if number else STEP
        return plain if plain > width and plain % STEP == 0 and self.ms(plain) <= limit else width

    def wider(self, width: int) -> int:
        """The next width above that expands."""
        above = width + STEP
        return above + STEP if above == self._block.in_channels else above

    def narrower(self, width: int) -> int:
        """The next width below that is faster; the same where none is."""
        below = width - STEP
        return below if below >= STEP else width


def _fitted(times: Sequence[_Times], limits: Sequence[float]) -> list[int] | None:
    """The widths of the blocks of a segment on one device; None where the narrowest do not fit.

    Args:
        times: of each block.
        limits: milliseconds of each; a device has their sum for all of them.
    """
    widths = [each.widest(limit) for each, limit in zip(times, limits, strict=True)]
    limit = sum(limits) * (1 - _TOLERANCE)
    used = sum(each.ms(width) for each, width in zip(times, widths, strict=True))
    while used > limit:
        changes = [(_worth(each, each.narrower(width), width), index) for index, (each, width) in
                   enumerate(zip(times, widths, strict=True)) if each.narrower(width) < width]  # fmt: skip
        if not changes:
            return None
        _, index = min(changes)
        narrow = times[index].narrower(widths[index])
        used -= times[index].ms(widths[index]) - times[index].ms(narrow)
        widths[index] = narrow
    while True:
        order = sorted(
            range(len(times)), key=lambda i: -_worth(times[i], widths[i], times[i].wider(widths[i]))
        )
        before = list(widths)
        for index in order:
            wide = times[index].wider(widths[index])
            more = times[index].ms(wide) - times[index].ms(widths[index]) if wide <= CHANNELS else limit
            if used + more <= limit:
                used += more
                widths[index] = wide
        if widths == before:
            return widths


def _worth(times: _Times, narrow: int, wide: int) -> float:
    """The MACs for each millisecond by which a wider block takes longer."""
    (low, few), (high, many) = times.at(narrow), times.at(wide)
    return (many - few) / (high - low) if high > low else float("inf")


def _put(widths: list[list[int]], segment: Segment, found: Sequence[int]) -> None:
    at = iter(found)
    for stage in range(segment.first, segment.stop):
        widths[stage] = [next(at) for _ in widths[stage]]
