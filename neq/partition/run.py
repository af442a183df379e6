"""A branched network run by two devices, an image at a time, and the time that each part of it takes.

Device 0 sends the image to device 1. Both compute the stem and their branch, segment by segment, and exchange
what a segment returns; device 0 computes the head. Each does with the same tensors, in the same order, what
one process does, so its outputs are the same to the last bit.

The two devices' clocks are not compared. At a sync, the one that comes last waits for nothing: the time that
it takes there is the exchange, and what the other one takes longer is waiting.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from math import isfinite
from statistics import median
from typing import Any

import torch
from torch import Tensor

from neq import __version__
from neq.partition.deploy import DevicePart, Manifest
from neq.partition.exchange import Peer
from neq.partition.meeting import PeerLost
from neq.partition.networks import joined
from neq.partition.profiling import MOST_APART

WARM_UP = 2  # images that are not counted
MOST_COUNTED = 1000  # images, the last ones
_STOP, _GO = 0, 1


@dataclass
class Times:
    """The seconds of one image on one device.

    Args:
        input: image sent, and confirmed; not part of the latency.
        stem: the stem.
        segments: each segment of the branch.
        syncs: each sync: waiting, exchange, and the sum or concatenation of both maps.
        head: the head, on device 0; on device 1, 0.
        total: from the image on both devices to the outputs, on device 1 to the last sync.
        computed: of stem, segments and head, without what emulates a slower device.
        worked: that the processor worked for these.
        processor: that it worked for all of it, by the process's clock.
    """

    input: float = 0.0
    stem: float = 0.0
    segments: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    head: float = 0.0
    total: float = 0.0
    computed: float = 0.0
    worked: float = 0.0
    processor: float = 0.0

    @property
    def is_calm(self) -> bool:
        """Whether the processor did nearly nothing else while the device computed."""
        return self.computed - self.worked <= MOST_APART * self.computed


@dataclass(frozen=True)
class DeviceLatency:
    """What an image takes on a device, medians, milliseconds.

    Args:
        stem, head: of both ends.
        segments: of the branch between syncs.
        exchange, waiting: at each sync.
        total: all of it.
        processor: that the process worked.
        busy: the share of the time of stem, segments and head in which the processor did something else.
    """

    stem: float
    segments: tuple[float, ...]
    exchange: tuple[float, ...]
    waiting: tuple[float, ...]
    head: float
    total: float
    processor: float
    busy: float


@dataclass(frozen=True)
class MeasuredLatency:
    """The measured latency of a network on two devices.

    Args:
        devices: by rank.
        images: that the medians are over.
        input: of sending an image, milliseconds; not in the totals.
    """

    devices: tuple[DeviceLatency, DeviceLatency]
    images: int
    input: float

    @property
    def total(self) -> float:
        """Milliseconds from the image on both devices to the outputs on device 0."""
        return self.devices[0].total

    def to_json(self) -> dict[str, Any]:
        """As values of JSON, milliseconds."""
        return {"images": self.images, "input_ms": self.input, "devices": [asdict(d) for d in self.devices]}


class PartRunner:
    """A device that runs its part of a network.

    Args:
        part: its part.
        peer: the other device.
        slow: called with the seconds that a part of the work took; emulates a slower device.
    """

    def __init__(self, part: DevicePart, peer: Peer, slow: Callable[[float], None] | None = None) -> None:
        self._part, self._peer, self._slow = part, peer, slow

    @torch.no_grad()
    def run(self, image: Tensor, times: Times) -> Tensor | None:
        """Runs one image; both devices do at the same time.

        Args:
            image: normalized, float32 [1, 3, S, S], in channels_last.
            times: to which its times are added.

        Returns:
            On device 0 the logits [1, classes].
        """
        start, worked = time.perf_counter(), time.process_time()
        x, times.stem = self._timed(times, partial(self._part.stem, image))
        for segment in self._part.model.segments:
            own, seconds = self._timed(times, partial(self._part.segment, x, segment))
            times.segments.append(seconds)
            before = time.perf_counter()
            theirs = self._peer.exchange(own, segment.number)
            x = joined(segment.sync, [own, theirs] if self._part.rank == 0 else [theirs, own])
            times.syncs.append(time.perf_counter() - before)
        out: Tensor | None = None
        if self._part.rank == 0:
            out, times.head = self._timed(times, partial(self._part.top, x))
        times.total, times.processor = time.perf_counter() - start, time.process_time() - worked
        return out

    def _timed(self, times: Times, compute: Callable[[], Tensor]) -> tuple[Tensor, float]:
        start, worked = time.perf_counter(), time.thread_time()
        out = compute()
        seconds = time.perf_counter() - start
        times.worked += time.thread_time() - worked
        times.computed += seconds
        if self._slow is not None:
            self._slow(seconds)
        return out, time.perf_counter() - start


class Leader:
    """Device 0, which has the images; an image is run when `run` is called.

    Args:
        part: its part.
        peer: device 1.
        size: S, pixels a side of an image.
        slow: as of `PartRunner`.
    """

    def __init__(
        self, part: DevicePart, peer: Peer, size: int, slow: Callable[[float], None] | None = None
    ) -> None:
        self._runner, self._peer, self._size = PartRunner(part, peer, slow), peer, size
        self._times: deque[Times] = deque(maxlen=MOST_COUNTED)

    def warm_up(self, images: int = WARM_UP) -> None:
        """Runs images of zeros, which are not counted."""
        for _ in range(images):
            self.run(torch.zeros(1, 3, self._size, self._size))
        self._times.clear()

    def run(self, image: Tensor) -> Tensor:
        """The logits of an image.

        Args:
            image: normalized, float32 [1, 3, S, S].

        Raises:
            PeerLost: device 1 has ended, or is late.
        """
        times, start = Times(), time.perf_counter()
        image = image.contiguous(memory_format=torch.channels_last)
        self._peer.send(torch.tensor([_GO]))
        self._peer.send(image)
        self._peer.receive((1,), torch.int64)
        times.input = time.perf_counter() - start
        out = self._runner.run(image, times)
        assert out is not None
        self._times.append(times)
        return out

    def finish(self) -> MeasuredLatency | None:
        """Ends the run of both; their latency, none where no image was counted."""
        self._peer.send(torch.tensor([_STOP]))
        return measured_latency(_of_both(self._peer, self._times))

    def finish_calm(self) -> tuple[MeasuredLatency | None, int]:
        """The same over the images in which both devices were calm, and how many images there were."""
        self._peer.send(torch.tensor([_STOP]))
        both = _of_both(self._peer, self._times)
        calm = [pair for pair in zip(*both, strict=True) if all(times.is_calm for times in pair)]
        return measured_latency([[pair[rank] for pair in calm] for rank in (0, 1)]), len(both[0])


def follow(
    part: DevicePart, peer: Peer, size: int, slow: Callable[[float], None] | None = None
) -> MeasuredLatency | None:
    """Runs device 1 until device 0 ends the run; their latency.

    Args:
        part, peer, size, slow: as of `Leader`.

    Raises:
        PeerLost: device 0 has ended, or is late.
    """
    runner, found = PartRunner(part, peer, slow), deque[Times](maxlen=MOST_COUNTED)
    while int(peer.receive((1,), torch.int64)) == _GO:
        times, image = Times(), peer.receive((1, 3, size, size))
        peer.send(torch.tensor([_GO]))
        runner.run(image, times)
        found.append(times)
    return measured_latency(_of_both(peer, found))


def hello(manifest: Manifest) -> dict[str, str]:
    """What a device says of itself before anything is run: values of `meeting.AGREED`."""
    return {
        "manifest": manifest.digest,
        "model": manifest.model.name,
        "neq": __version__,
        "torch": torch.__version__.partition("+")[0],
    }


def measured_latency(both: Sequence[Sequence[Times]]) -> MeasuredLatency | None:
    """The medians of both devices.

    Args:
        both: times by rank, of the same images; none: no image was run.
    """
    if not both[0]:
        return None
    exchanges = [
        [min(pair) for pair in zip(*(times.syncs for times in image), strict=True)]
        for image in zip(*both, strict=True)
    ]
    devices = [_of_device(times, exchanges) for times in both]
    images = len(both[0])
    return MeasuredLatency((devices[0], devices[1]), images, 1e3 * median(times.input for times in both[0]))


def parts(found: MeasuredLatency) -> Iterator[tuple[str, tuple[float, float]]]:
    """The rows of a table: what it is, and milliseconds of both devices."""
    first, second = found.devices
    yield "stem", (first.stem, second.stem)
    for number in range(len(first.segments)):
        yield f"segment {number}", (first.segments[number], second.segments[number])
        yield f"sync {number}: exchange", (first.exchange[number], second.exchange[number])
        yield f"sync {number}: waiting", (first.waiting[number], second.waiting[number])
    yield "head", (first.head, second.head)
    yield "latency", (first.total, second.total)
    yield "processor time", (first.processor, second.processor)


def _of_device(every: Sequence[Times], exchanges: Sequence[Sequence[float]]) -> DeviceLatency:
    def of(values: Iterator[float]) -> float:
        return 1e3 * median(values)

    syncs = range(len(every[0].syncs))
    return DeviceLatency(
        stem=of(times.stem for times in every),
        segments=tuple(of(times.segments[number] for times in every) for number in syncs),
        exchange=tuple(of(each[number] for each in exchanges) for number in syncs),
        waiting=tuple(
            of(times.syncs[number] - each[number] for times, each in zip(every, exchanges, strict=True))
            for number in syncs
        ),
        head=of(times.head for times in every),
        total=of(times.total for times in every),
        processor=of(times.processor for times in every),
        busy=1 - sum(times.worked for times in every) / sum(times.computed for times in every),
    )


def _of_both(peer: Peer, counted: Iterable[Times]) -> list[list[Times]]:
    """The times of the last images that both counted, by rank: each tells the other its own."""
    own = list(counted)
    peer.meeting.tell({"times": [asdict(times) for times in own]})
    message: Mapping[str, Any] = peer.meeting.hear()
    try:
        theirs = [_checked(Times(**times), own) for times in message["times"]]
        images = min(len(own), len(theirs))
        both = [times[len(times) - images :] for times in (own, theirs)]
        return both if peer.rank == 0 else both[::-1]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PeerLost("the other device has ended without its times") from error


def _checked(times: Times, own: Sequence[Times]) -> Times:
    """The times of the other device; ValueError, TypeError or OverflowError where they are none."""
    lists = times.segments, times.syncs
    of_image = (value for name, value in asdict(times).items() if name not in ("segments", "syncs"))
    values = chain(*lists, of_image)
    if not all(map(isfinite, values)) or times.computed <= 0:
        raise ValueError("a time is no number")
    if own and any(len(each) != len(own[0].syncs) for each in lists):
        raise ValueError("times of other syncs")
    return times
