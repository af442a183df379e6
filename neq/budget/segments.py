"""What a network in segments keeps for backward at most, and where to cut it so that it keeps least.

With segments s = 0 .. S - 1 of a forward pass, backward begins at the last one. While segment s runs again
and back, the inputs b of the segments up to it and all that it keeps itself, k_s, are there:

    kept = max over s of (sum over t <= s of b_t + k_s)

The network's own input does not count, nor does the input of a segment that keeps nothing (nothing before it
trains), and of the last segment only if one of its layers keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neq.backward.plan import Plan
from neq.budget.saved_tensors import Kept, fake_forwards, precision_of
from neq.budget.step_spec import StepSpec


@dataclass(frozen=True)
class KeptBySegment:
    """What one segment keeps.

    Args:
        input_bytes: of its input; 0 for the network's.
        reads_input: whether a layer keeps that.
        inner: bytes of all else that its layers keep.
    """

    input_bytes: int = 0
    reads_input: bool = False
    inner: int = 0

    def held(self, is_last: bool) -> int:
        """Bytes of its input, where backward needs it."""
        return self.input_bytes if self.reads_input or (self.inner and not is_last) else 0


@dataclass
class _Notes:
    """Collects what each segment of a forward pass keeps, and its input."""

    free: set[int] = field(default_factory=set)
    inputs: list[torch.UntypedStorage] = field(default_factory=list)
    parts: list[Kept] = field(default_factory=list)

    def begin(self, number: int, x: Tensor) -> None:
        """A segment begins."""
        self.inputs.append(x.untyped_storage())
        before = {key for part in self.parts for key in part.storages}
        self.parts.append(Kept(self.free | before - {self.inputs[-1]._cdata}))

    def note(self, tensor: Tensor) -> Tensor:
        """Counts a tensor's storage once."""
        return self.parts[-1].note(tensor)

    def segments(self) -> list[KeptBySegment]:
        """What was collected."""
        found = []
        for x, part in zip(self.inputs, self.parts, strict=True):
            size = 0 if x._cdata in self.free else x.nbytes()
            reads_input = x._cdata in part.storages
            found.append(KeptBySegment(size, reads_input, part.bytes - (size if reads_input else 0)))
        return found


def kept_by_segment(plan: Plan, spec: StepSpec) -> list[list[KeptBySegment]]:
    """What each segment of each forward pass of a step keeps.

    Args:
        plan: of a fake copy, with cuts.
        spec: of the step.
    """
    assert plan.segments is not None, "the plan is not cut"
    notes, found = _Notes(), []
    plan.segments.listener = notes.begin
    with fake_forwards(plan.network, plan.parameters(), spec, notes) as batches:
        for images in batches:
            notes.inputs, notes.parts = [], []
            with precision_of(spec, images):
                plan(images)
            found.append(notes.segments())
    return found


def most_kept(segments: Sequence[KeptBySegment]) -> int:
    """The most bytes that backward finds kept at once, of one forward pass."""
    held = most = 0
    for number, segment in enumerate(segments):
        held += segment.held(number == len(segments) - 1)
        most = max(most, held + segment.inner)
    return most


def best_cuts(points: Sequence[str], segments: Sequence[KeptBySegment], count: int) -> tuple[str, ...]:
    """The cut points at which a network keeps least, in no more segments than a number.

    Args:
        points: names of the cut points, in order.
        segments: between all of them: one more than points.
        count: the most segments, 1 or more.

    With k(i, j) what segments i to j - 1 keep as one, the least that segments i to the end keep in c parts is
    h(i, c) = min over j of b_i + max(k(i, j), h(j, c - 1)), solved from the end.
    """
    size = len(segments)
    kept = [[0] * (size + 1) for _ in range(size)]
    for start in range(size):
        for end in range(start + 1, size + 1):
            last = segments[end - 1]
            joined = last.input_bytes if last.reads_input and end - 1 > start else 0
            kept[start][end] = kept[start][end - 1] + last.inner + joined
    # The least of segments i to the end, and the cuts that reach it, in one part.
    least = [
        (kept[start][size] + (segments[start].input_bytes if segments[start].reads_input else 0), ())
        for start in range(size)
    ]
    best: list[tuple[int, tuple[int, ...]]] = list(least)
    for _ in range(1, count):
        more = list(best)
        for start in range(size):
            for end in range(start + 1, size):
                inner = kept[start][end]
                held = segments[start].input_bytes if inner or segments[start].reads_input else 0
                total = held + max(inner, best[end][0])
                if total < more[start][0]:
                    more[start] = total, (end, *best[end][1])
        best = more
    return tuple(points[cut - 1] for cut in best[0][1])
