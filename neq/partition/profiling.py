"""Measures the times of a device: the blocks of networks at a few widths, their ends, and whole networks.

Networks are measured as they are deployed: batch norms folded, float32, channels_last, one image, one thread.
Parts and whole networks take turns, so that a part finds caches as it does in a network, and what changes
while it is measured changes all of them. Before a part is run its input is written anew, as by the part
before it. A sample during which the processor did something else does not count.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from neq.partition.device_profile import (
    BlockShape,
    BlockTimes,
    DeviceProfile,
    HeadTime,
    NetworkTime,
    StemTime,
)
from neq.partition.folding import folded
from neq.partition.model import Block, Model
from neq.partition.networks import BranchedNetwork, InvertedResidual
from neq.utils.errors import UserError

MOST_APART = 0.1  # of a sample's wall time, that the processor may have done something else
WIDTHS = 5  # of a shape, at most
_TRIES = 10  # for a sample that counts
_GIVE_UP = 3  # rounds without one
_STEP = 4  # widths are multiples of it


@dataclass
class Part:
    """Something whose time is measured.

    Args:
        name: as an error shows it.
        run: computes it from its input.
        values: its input is written from these, [1, C, H, W] in channels_last.
    """

    name: str
    run: Callable[[Tensor], object]
    values: Tensor
    walls: list[float] = field(default_factory=list)
    works: list[float] = field(default_factory=list)
    spoilt: int = 0

    def sample(self, allow_busy: bool) -> None:
        """Measures it once more; without `allow_busy` again until the sample counts, or in vain."""
        entered = self.values.clone(memory_format=torch.channels_last)
        for _ in range(_TRIES):
            entered.copy_(self.values)
            start, worked = time.perf_counter(), time.thread_time()
            self.run(entered)
            work, wall = time.thread_time() - worked, time.perf_counter() - start
            if allow_busy or abs(wall - work) <= MOST_APART * wall:
                self.walls.append(wall)
                self.works.append(work)
                return
            self.spoilt += 1


def profile_device(
    models: Sequence[Model],
    name: str,
    classes: int,
    repeats: int = 15,
    allow_busy: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> DeviceProfile:
    """Measures this device with the threads that torch has; all blocks with the first model's activation.

    Args:
        models: whose parts are measured, of one image size; of plain ones also those of their branched forms.
        name: of the device.
        classes: of the classifiers.
        repeats: samples of each part.
        allow_busy: also on a busy device, where the processor's time counts in place of the time that passed.
        progress: called with the rounds that are done, and of how many.

    Raises:
        UserError: the device is busy with something else.
    """
    size = models[0].image_size
    blocks = {
        (shape, width): _block_part(models, shape, width)
        for shape, widths in block_widths(models).items()
        for width in widths
    }
    stems, heads, wholes = _ends_and_wholes(models, classes)
    parts = [*blocks.values(), *stems.values(), *heads.values(), *wholes.values()]
    with torch.no_grad():
        _measure(parts, repeats, allow_busy, progress)
    clock = "cpu" if allow_busy else "wall"
    ms = {id(part): 1e3 * median(part.works if allow_busy else part.walls) for part in parts}
    tables = tuple(
        _block_times(shape, {width: ms[id(part)] for (of, width), part in blocks.items() if of == shape})
        for shape in dict.fromkeys(shape for shape, _ in blocks)
    )
    passed = sum(sum(part.walls) for part in parts)
    found = DeviceProfile(
        name=name,
        image_size=size,
        blocks=tables,
        stems=tuple(replace(stem, ms=ms[id(part)]) for stem, part in stems.items()),
        heads=tuple(replace(head, ms=ms[id(part)]) for head, part in heads.items()),
        clock=clock,
        busy=max(0.0, 1 - sum(sum(part.works) for part in parts) / passed),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    networks = [
        NetworkTime(model.name, ms[id(part)], parts_ms(found, model, classes))
        for model, part in zip(models, wholes.values(), strict=True)
    ]
    return replace(found, networks=tuple(networks))


def parts_ms(profile: DeviceProfile, model: Model, classes: int) -> float:
    """The sum of a profile's times for all parts of a network, both branches of a branched one.

    Args:
        profile: of a device.
        model: for images of the profile's size.
        classes: of its classifier.
    """
    blocks = [block for branch in range(model.branches) for block in model.blocks(branch)]
    stem, head = _stem_of(model), _head_of(model, classes)
    return (
        profile.stem_ms(stem.side, stem.kernel, stem.stride, stem.in_channels, stem.out_channels)
        + sum(map(profile.block_ms, blocks))
        + profile.head_ms(head.side, head.in_channels, head.features, head.classes)
    )


def block_widths(models: Iterable[Model]) -> dict[BlockShape, list[int]]:
    """The widths at which blocks of each shape are measured, rising; among them `in`, which does not expand.

    Args:
        models: whose blocks, of both branches, and of plain ones with half the channels behind each stage.
    """
    wanted: dict[BlockShape, list[int]] = {}
    for model in sorted(models, key=lambda model: model.branches):  # widths of plain ones first
        for branch in range(model.branches):
            for stage in model.stages:
                blocks = stage[branch]
                last = blocks[-1]
                if model.branches == 1 and last.out_channels % 2 == 0:
                    blocks = (*blocks, replace(last, out_channels=last.out_channels // 2))
                for block in blocks:
                    wanted.setdefault(BlockShape.of(block), []).append(block.expanded)
    return {shape: _spread(shape.in_channels, widths) for shape, widths in wanted.items()}


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values, by squares, that do not fall: neighbours that do are replaced by their mean.

    Source: Ayer et al., 1955, pool adjacent violators.
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, few), (high, more) = pools[-2:]
            pools[-2:] = [((low * few + high * more) / (few + more), few + more)]
    return [mean for mean, count in pools for _ in range(count)]


def scaled(profile: DeviceProfile, share: float) -> DeviceProfile:
    """The profile of an emulated device with a share of this one's processor: times are divided by it.

    Args:
        profile: measured.
        share: above 0, up to 1.
    """
    return replace(
        profile,
        blocks=tuple(
            replace(
                times,
                widths=tuple((width, ms / share) for width, ms in times.widths),
                plain_ms=None if times.plain_ms is None else times.plain_ms / share,
            )
            for times in profile.blocks
        ),
        stems=tuple(replace(stem, ms=stem.ms / share) for stem in profile.stems),
        heads=tuple(replace(head, ms=head.ms / share) for head in profile.heads),
        networks=tuple(
            replace(each, whole_ms=each.whole_ms / share, parts_ms=each.parts_ms / share)
            for each in profile.networks
        ),
        environment={**profile.environment, "cpu_share": share},
    )


def _measure(
    parts: Sequence[Part], repeats: int, allow_busy: bool, progress: Callable[[int, int], None]
) -> None:
    """Samples all parts in rounds, each in an order of its own; the first round does not count."""
    order, shuffled = list(parts), random.Random(0)
    for part in parts:
        part.run(part.values.clone(memory_format=torch.channels_last))
    for number in range(1, repeats + 1):
        shuffled.shuffle(order)
        for part in order:
            part.sample(allow_busy)
        progress(number, repeats)
        needed = 1 if number == min(_GIVE_UP, repeats) else -(-repeats // 2) if number == repeats else 0
        lacking = [part for part in parts if len(part.walls) < needed]
        if lacking:
            raise _busy(parts, lacking)


def _busy(parts: Sequence[Part], lacking: Sequence[Part]) -> UserError:
    spoilt = sum(part.spoilt for part in parts)
    share = spoilt / (spoilt + sum(len(part.walls) for part in parts))
    return UserError(
        f"this device is busy: in {share:.0%} of the samples the time that passed and the processor's differ "
        f"by over {MOST_APART:.0%}, and too few others are left of {lacking[0].name}; stop what else runs, "
        "or give --allow-busy, which counts the processor's time and records it"
    )


def _spread(in_channels: int, wanted: Sequence[int]) -> list[int]:
    """Up to WIDTHS widths: the first of those that are wanted, and others down to a quarter of the widest."""
    chosen = list(dict.fromkeys(width for width in wanted if width != in_channels))
    top = max(wanted)
    kept = chosen[: WIDTHS - 2]
    for width in (top, _multiple(top / 4), _multiple(top / 2), _multiple(3 * top / 4), *chosen):
        is_near = any(abs(width - other) < top / 10 for other in kept)
        if len(kept) < WIDTHS and width != in_channels and not (is_near and len(kept) > 1):
            kept.append(width)
    width = _STEP
    while len(set(kept)) < 2:  # narrow blocks
        if width != in_channels:
            kept.append(width)
        width += _STEP
    return sorted({*kept, in_channels})


def _multiple(width: float) -> int:
    return max(_STEP, _STEP * round(width / _STEP))


def _block_times(shape: BlockShape, ms: dict[int, float]) -> BlockTimes:
    widths = sorted(width for width in ms if width != shape.in_channels)
    times = rising([ms[width] for width in widths])
    return BlockTimes(shape, tuple(zip(widths, times, strict=True)), ms.get(shape.in_channels))


def _block_part(models: Sequence[Model], shape: BlockShape, width: int) -> Part:
    block = Block(shape.side, shape.kernel, shape.stride, shape.in_channels, width, shape.out_channels)
    act = models[0].act
    module = _deployed(InvertedResidual(block, act, 0.1))
    return Part(f"block {shape}, {width} wide", module, _values(shape.in_channels, shape.side))


def _ends_and_wholes(
    models: Sequence[Model], classes: int
) -> tuple[dict[StemTime, Part], dict[HeadTime, Part], dict[int, Part]]:
    """The distinct stems and heads of networks, and the networks themselves by their number."""
    stems: dict[StemTime, Part] = {}
    heads: dict[HeadTime, Part] = {}
    wholes: dict[int, Part] = {}
    for number, model in enumerate(models):
        network: Any = _deployed(BranchedNetwork(model, classes))
        image, stem, head = _values(3, model.image_size), _stem_of(model), _head_of(model, classes)
        stems.setdefault(stem, Part(f"the stem of {model.name}", network.stem, image))
        top = Part(f"the head of {model.name}", network.top, _values(head.in_channels, head.side))
        heads.setdefault(head, top)
        wholes[number] = Part(f"network {model.name}", network, image)
    return stems, heads, wholes


def _stem_of(model: Model) -> StemTime:
    """The stem of a model; its time is to be measured."""
    stem = model.stem
    return StemTime(model.image_size, stem.kernel, stem.stride, stem.in_channels, stem.out_channels, 0.0)


def _head_of(model: Model, classes: int) -> HeadTime:
    """The head of a model; its time is to be measured."""
    side, head = model.stages[-1][0][-1].out_side, model.head
    return HeadTime(side, head.in_channels, head.out_channels, classes, 0.0)


def _deployed(module: nn.Module) -> nn.Module:
    return folded(module).requires_grad_(False).to(memory_format=torch.channels_last)


def _values(channels: int, side: int) -> Tensor:
    """Values as an activation returns them, [1, C, S, S]."""
    drawn = torch.rand((1, channels, side, side), generator=torch.Generator().manual_seed(0))
    return drawn.contiguous(memory_format=torch.channels_last)
