"""The peak of a training step's memory, and the cuts that lower it most.

One step without values (`neq.budget.step_trace`) shows what is there at each of its moments. From that the
peak follows for any number of images and any cuts. With units u between the points where a network can be
cut, and segments s of units i .. j - 1: while unit u runs, forward, again, or back,

    live = inputs of the segments up to s + all that units i .. u - 1 keep + what is there in u + gradients

and the peak is the most of it. While a segment runs again, the gradient of its result is there too. Where an
earlier micro-batch or a later forward pass ran back before, all gradients are there from the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

from neq.budget.scratch import copies_pointwise
from neq.budget.step_trace import Moment, Unit


class Work(NamedTuple):
    """What forward and backward passes compute.

    Args:
        forward, backward, again: multiply-accumulates of the forward passes, of all gradients, and of what
            runs again in backward.
        written: bytes of all tensors that are made.
    """

    forward: int
    backward: int
    again: int
    written: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.forward + self.backward + self.again


@dataclass(frozen=True)
class StepProfile:
    """Memory and work of the steps of one network, selection, norm rule and precision.

    Args:
        units: of the network, in the order of calls.
        names: of the layers or norms before which the network can be cut: before each unit but the first.
        ghost_batch: images of a group of batch norms; None: they see all.
        held: bytes that a step finds and leaves: weights, buffers, chosen rows and the optimizer's state.
        forward_macs, backward_macs: multiply-accumulates of one image, by unit.
    """

    units: tuple[Unit, ...]
    names: tuple[str, ...]
    ghost_batch: int | None
    held: int
    forward_macs: tuple[int, ...]
    backward_macs: tuple[int, ...]

    @property
    def gradients(self) -> int:
        """Bytes of the gradients of all that trains."""
        return sum(unit.gradients for unit in self.units)

    def peak(
        self, images: Sequence[int], cuts: Sequence[str] = (), accumulates: bool = False, scratch: float = 1.0
    ) -> int:
        """The most bytes of tensors above those that the step found: its batch and `held`.

        Args:
            images: of each forward pass whose intermediates are kept together, as `StepSpec.kept_together`.
            cuts: names before which the network is cut.
            accumulates: whether the step has more than one micro-batch.
            scratch: copies of a convolution's weight that it works on, as `neq.budget.scratch` measures.
        """
        starts, before, most = self._starts(cuts), 0, 0
        for number, count in enumerate(images):
            segments = self._pass(count, accumulates or number < len(images) - 1, scratch).segments(starts)
            for segment in segments:
                most = max(most, before + segment.peak)
                before += segment.held
            before += segments[-1].inner
        return most

    def kept(self, images: Sequence[int], cuts: Sequence[str] = ()) -> int:
        """The most bytes that backward finds kept at once.

        Args:
            images, cuts: as for `peak`.
        """
        most = 0
        for count in images:
            held = of_pass = 0
            for segment in self._pass(count, False, 0).segments(self._starts(cuts)):
                held += segment.held
                of_pass = max(of_pass, held + segment.inner)
            most += of_pass
        return most

    def best_cuts(
        self,
        images: int,
        segments: int,
        accumulates: bool = False,
        scratch: float = 1.0,
        points: Sequence[str] | None = None,
    ) -> tuple[str, ...]:
        """The cuts of the lowest peak, in no more segments than a number; of those with it the least work.

        With p(i, j) the peak of a segment of units i .. j - 1 and b(i, j) what is held of its input, the
        least that units i to the end reach in c segments is

            h(i, c) = min over j of max(p(i, j), b(i, j) + h(j, c - 1)),

        solved from the end.

        Args:
            images: of the largest forward pass.
            segments: the most segments, 1 or more.
            accumulates, scratch: as for `peak`.
            points: names among which to choose; None: all.
        """
        of_pass, end = self._pass(images, accumulates, scratch), len(self.units)
        starts = [n for n in range(end) if not n or points is None or self.names[n - 1] in points]
        by_start = {start: dict(of_pass.segments_from(start)) for start in starts}
        # Peak, multiply-accumulates that run again, and cuts.
        best: dict[int, tuple[int, int, tuple[int, ...]]]
        best = {start: (by_start[start][end].peak, 0, ()) for start in starts}
        for _ in range(1, segments):
            more = dict(best)
            for start, cut in combinations(starts, 2):
                segment, (peak, again, cuts) = by_start[start][cut], best[cut]
                if segment.trains:
                    again += sum(self.forward_macs[start:cut])
                found = max(segment.peak, segment.held + peak), again, (cut, *cuts)
                more[start] = min(more[start], found, key=lambda each: each[:2])
            if more == best:
                break
            best = more
        return tuple(self.names[cut - 1] for cut in best[0][2])

    def work(self, images: Sequence[int], cuts: Sequence[str] = ()) -> Work:
        """The multiply-accumulates of forward passes and of their backward.

        Args:
            images, cuts: as for `peak`.
        """
        starts, count = self._starts(cuts), sum(images)
        again = [
            number
            for start, end in pairwise(starts)
            if any(unit.backward for unit in self.units[start:end])
            for number in range(start, end)
        ]
        passes = [each for unit in self.units for each in (unit.forward_bytes, unit.backward_bytes)]
        passes += [self.units[number].forward_bytes for number in again]
        return Work(
            count * sum(self.forward_macs),
            count * sum(self.backward_macs),
            count * sum(self.forward_macs[number] for number in again),
            sum(each.at(n, self._groups(n)) for n in images for each in passes),
        )

    def _starts(self, cuts: Sequence[str]) -> list[int]:
        return [0, *(number for number, name in enumerate(self.names, 1) if name in cuts)]

    def _pass(self, images: int, accumulates: bool, scratch: float) -> _Pass:
        return _Pass(self, images, self._groups(images), accumulates, scratch)

    def _groups(self, images: int) -> int:
        return 0 if self.ghost_batch is None else -(-images // self.ghost_batch)


class _Segment(NamedTuple):
    """Bytes of a segment: its peak, its input where backward needs it, all else that it keeps."""

    peak: int
    held: int
    inner: int
    trains: bool


class _Pass:
    """One forward pass of a number of images, and its backward."""

    def __init__(
        self, profile: StepProfile, images: int, groups: int, accumulates: bool, scratch: float
    ) -> None:
        self._units = units = profile.units
        given = profile.gradients if accumulates else None

        many = copies_pointwise(images)

        def most(moments: Sequence[Moment]) -> int:
            return max(
                (
                    size.at(images, groups)
                    + round(scratch * (weights + pointwise * many))
                    + (done if given is None else given)
                    for size, weights, done, pointwise in moments
                ),
                default=0,
            )

        self._inputs = [unit.input.at(images, groups) for unit in units] + [0]
        self._inner = [unit.inner.at(images, groups) for unit in units]
        self._forward = [(most(unit.forward), most(unit.forward_cut)) for unit in units]
        self._backward = [(most(unit.backward), most(unit.backward_cut)) for unit in units]
        # Complete before the backward of the unit before begins, beyond what forward found.
        later = [sum(unit.gradients for unit in units[number:]) for number in range(len(units) + 1)]
        self._complete = later if given is None else [0] * len(later)

    def segments(self, starts: Sequence[int]) -> list[_Segment]:
        """The segments that begin at some units."""
        ends = (*starts[1:], len(self._units))
        return [dict(self.segments_from(start))[end] for start, end in zip(starts, ends, strict=True)]

    def segments_from(self, start: int) -> Iterator[tuple[int, _Segment]]:
        """All segments that begin at a unit, by the unit behind them."""
        given, inner, forward, backward, trains = self._inputs[start], 0, 0, 0, False
        for number in range(start, len(self._units)):
            unit, is_cut, x = self._units[number], number == start, self._inputs[number]
            kept = 0 if is_cut else inner + x * unit.made
            forward = max(forward, kept + self._forward[number][is_cut])
            backward = max(backward, kept + self._backward[number][is_cut])
            inner += self._inner[number] + (0 if is_cut else x * (unit.made or unit.read))
            trains = trains or bool(unit.backward)
            end = number + 1
            if end == len(self._units):
                held, again, result = given * self._units[start].read_if_cut, 0, 0
            else:
                held, again = given * trains, (self._inputs[end] + self._complete[end]) * trains
                result = self._inputs[end] * self._units[end].made
            yield end, _Segment(max(given + forward + again, held + backward), held, inner + result, trains)
