"""What a branched network is made of: its blocks, its stages, and where its two branches synchronize.

A network has a stem, `STAGES` stages of inverted residual blocks and a head. In a plain one a stage has one
branch; in a branched one it has two, one a device. Behind each stage of a branched network stands a sync:

- `n`: each branch goes on with its own output;
- `a`: both go on with the sum of the two;
- `c`: both go on with the two in a row, branch 0 first.

The last sync is never `n`. The stages up to a sync other than `n` are a segment: within it the branches need
nothing of each other.

Source: Kang et al., "SyncNAS", LCTES 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from neq.utils.errors import UserError, shown

STAGES = 7
ACTIVATIONS = ("ReLU", "ReLU6")
SYNCS = ("n", "a", "c")
CHANNELS, SIDES, KERNELS, STRIDES, BLOCKS = 16384, 4096, 15, 4, 64  # the most of each
PARAMETERS = 10**8
MAP = 10**9  # values of a map of one image; 4e8 in mobilenet_v2 at 4096 px


@dataclass(frozen=True)
class Block:
    """An inverted residual block: expand (1x1), depthwise, project (1x1).

    It expands only where `expanded` differs from `in_channels`; its input is added where shapes allow.

    Args:
        side: pixels a side of its input.
        kernel, stride: of the depthwise convolution, whose padding is kernel // 2.
        in_channels, expanded, out_channels: of input, depthwise convolution and output.
    """

    side: int
    kernel: int
    stride: int
    in_channels: int
    expanded: int
    out_channels: int

    @property
    def expands(self) -> bool:
        """Whether it has an expanding convolution."""
        return self.expanded != self.in_channels

    @property
    def skips(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def out_side(self) -> int:
        """Pixels a side of its output."""
        return -(-self.side // self.stride)


@dataclass(frozen=True)
class Conv:
    """A dense convolution with batch norm and activation: the stem, or the head's 1x1.

    Args:
        in_channels, out_channels: of input and output.
        kernel, stride: its padding is kernel // 2.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int


Blocks = tuple[Block, ...]
Stage = tuple[Blocks, ...]  # a branch each


@dataclass(frozen=True)
class Segment:
    """Stages that a branch runs without the other.

    Args:
        number: from 0 on.
        first, stop: its stages are first .. stop - 1.
        sync: behind it, `a` or `c`; empty in a plain network.
    """

    number: int
    first: int
    stop: int
    sync: str


@dataclass(frozen=True)
class Model:
    """A plain or a branched network, checked when it is made.

    Args:
        name: of the network, or of its strategy.
        act: its activations, one of ACTIVATIONS.
        stem, head: the convolutions before and behind the stages.
        bn_momentum: of its batch norms, in torch's sense.
        stages: STAGES of them, each with one branch, or each with two of as many blocks.
        sync: behind each stage, of SYNCS; None: a plain network.

    Raises:
        UserError: parts that do not fit one another, or a value out of range.
    """

    name: str
    act: str
    stem: Conv
    head: Conv
    bn_momentum: float
    stages: tuple[Stage, ...]
    sync: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_values(self)
        _check_shapes(self)

    @property
    def branches(self) -> int:
        """1 of a plain network, 2 of a branched one."""
        return 1 if self.sync is None else 2

    @property
    def image_size(self) -> int:
        """Pixels a side of the image that the blocks' sides belong to."""
        return self.stages[0][0][0].side * self.stem.stride

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What a branch runs between syncs, in order; a plain network is one segment."""
        if self.sync is None:
            return (Segment(0, 0, STAGES, ""),)
        ends = [stage for stage, sync in enumerate(self.sync) if sync != "n"]
        starts = [0, *(end + 1 for end in ends)]
        return tuple(
            Segment(number, first, end + 1, self.sync[end])
            for number, (first, end) in enumerate(zip(starts, ends, strict=False))
        )

    def blocks(self, branch: int, segment: Segment | None = None) -> Iterator[Block]:
        """The blocks of a branch in order, of one segment or of all."""
        stages = self.stages if segment is None else self.stages[segment.first : segment.stop]
        return chain.from_iterable(stage[branch] for stage in stages)

    def at(self, image_size: int) -> Model:
        """The same network with the sides that its blocks have for images of another size."""
        side = -(-image_size // self.stem.stride)
        stages = []
        for stage in self.stages:
            branches = []
            for blocks in stage:
                at, resized = side, []
                for block in blocks:
                    resized.append(replace(block, side=at))
                    at = resized[-1].out_side
                branches.append(tuple(resized))
            side = at
            stages.append(tuple(branches))
        return replace(self, stages=tuple(stages))


def _check_values(model: Model) -> None:
    """Checks each value by itself; UserError names the first that is out of range."""
    if not (isinstance(model.name, str) and 0 < len(model.name) <= 200 and model.name.isprintable()):
        raise UserError(f"name {shown(model.name)} is not allowed: 1 to 200 printable characters")
    if model.act not in ACTIVATIONS:
        raise UserError(f"act {shown(model.act)} is not allowed: {' or '.join(ACTIVATIONS)}")
    if not 0 < model.bn_momentum <= 1:
        raise UserError(f"bn_momentum {shown(model.bn_momentum)} is not allowed: above 0, up to 1")
    if len(model.stages) != STAGES:
        raise UserError(f"{len(model.stages)} stages are given; {STAGES} are expected")
    if model.sync is not None:
        _check_sync(model.sync)
    for name, conv in (("stem", model.stem), ("head", model.head)):
        _check_numbers(name, conv.kernel, conv.stride, conv.in_channels, conv.out_channels)
    if model.head.kernel != 1 or model.head.stride != 1:
        raise UserError("head has a kernel or stride above 1; [in, out, 1, 1] is expected")
    for number, stage in enumerate(model.stages):
        if len(stage) != model.branches:
            asked = "1 branch without sync" if model.sync is None else "2 branches, 0 and 1, with sync"
            raise UserError(f"stage {number} has {len(stage)} branches; {asked} is expected")
        counts = sorted({len(blocks) for blocks in stage})
        if len(counts) > 1:
            raise UserError(
                f"stage {number} has branches of {counts[0]} and {counts[1]} blocks; give as many"
            )
        if not 1 <= counts[0] <= BLOCKS:
            raise UserError(f"stage {number} has {counts[0]} blocks; 1 to {BLOCKS} are expected")
        for branch, blocks in enumerate(stage):
            for place, block in _places(model, number, branch, blocks):
                channels = block.in_channels, block.expanded, block.out_channels
                _check_numbers(place, block.kernel, block.stride, *channels)
                if not 1 <= block.side <= SIDES:
                    raise UserError(f"{place}: side {shown(block.side)} is not allowed: 1 to {SIDES}")
                if (values := max(channels) * block.side**2) > MAP:
                    raise UserError(f"{place} has maps of {values:,d} values; up to {MAP:,d} are allowed")
    if (values := model.head.out_channels * model.stages[-1][0][-1].out_side ** 2) > MAP:
        raise UserError(f"head has maps of {values:,d} values; up to {MAP:,d} are allowed")
    if (weights := parameters_without_classifier(model)) > PARAMETERS:
        raise UserError(f"it has {weights:,d} parameters; up to {PARAMETERS:,d} are allowed")


def _check_sync(sync: Sequence[str]) -> None:
    if len(sync) != STAGES:
        raise UserError(f"sync has {len(sync)} values; {STAGES} are expected, one behind each stage")
    for stage, kind in enumerate(sync):
        if kind not in SYNCS:
            raise UserError(f"sync {shown(kind)} behind stage {stage} is not allowed: n, a or c")
    if sync[-1] == "n":
        raise UserError(f"sync n behind stage {STAGES - 1} is not allowed: the head needs a or c")


def _check_numbers(place: str, kernel: int, stride: int, *channels: int) -> None:
    if not 1 <= kernel <= KERNELS or kernel % 2 == 0:
        raise UserError(f"{place}: kernel {shown(kernel)} is not allowed: an odd number, 1 to {KERNELS}")
    if not 1 <= stride <= STRIDES:
        raise UserError(f"{place}: stride {shown(stride)} is not allowed: 1 to {STRIDES}")
    for count in channels:
        if not 1 <= count <= CHANNELS:
            raise UserError(f"{place}: {shown(count)} channels are not allowed: 1 to {CHANNELS}")


def _check_shapes(model: Model) -> None:
    """Checks that each block takes what the one before it returns; else UserError, of the first."""
    channels = [model.stem.out_channels] * model.branches
    sides = [model.stages[0][0][0].side] * model.branches
    for number, stage in enumerate(model.stages):
        for branch, blocks in enumerate(stage):
            for place, block in _places(model, number, branch, blocks):
                if (block.in_channels, block.side) != (channels[branch], sides[branch]):
                    raise UserError(
                        f"{place} takes {block.in_channels} channels of side {block.side}, but gets "
                        f"{channels[branch]} of side {sides[branch]}"
                    )
                channels[branch], sides[branch] = block.out_channels, block.out_side
        kind = "n" if model.sync is None else model.sync[number]
        if kind == "n":
            continue
        if sides[0] != sides[1]:
            raise UserError(f"sync {kind} behind stage {number}: its sides {sides[0]} and {sides[1]} differ")
        if kind == "a" and channels[0] != channels[1]:
            raise UserError(
                f"sync a behind stage {number}: {channels[0]} and {channels[1]} channels cannot be added"
            )
        channels = [sum(channels) if kind == "c" else channels[0]] * 2
    if model.head.in_channels != channels[0]:
        raise UserError(f"head takes {model.head.in_channels} channels, but gets {channels[0]}")


def _places(model: Model, stage: int, branch: int, blocks: Blocks) -> Iterator[tuple[str, Block]]:
    """The blocks of one branch of a stage, each with what an error calls it."""
    of_branch = "" if model.sync is None else f", branch {branch}"
    for index, block in enumerate(blocks):
        yield f"stage {stage}{of_branch}, block {index}", block


def parameters_without_classifier(model: Model) -> int:
    """The parameters of a network, those of norms too, without its classifier's."""
    of_blocks = sum(
        block.expanded * (block.expands * (block.in_channels + 2) + block.kernel**2 + 2 + block.out_channels)
        + 2 * block.out_channels
        for stage in model.stages
        for blocks in stage
        for block in blocks
    )
    convs = (model.stem, model.head)
    return of_blocks + sum(conv.out_channels * (conv.in_channels * conv.kernel**2 + 2) for conv in convs)
