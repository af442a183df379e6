"""A small network and its branched forms."""

from dataclasses import dataclass, replace

from neq.partition import Block, Conv, Model, branched
from neq.partition.costs import block_macs
from neq.partition.device_profile import BlockShape, BlockTimes, DeviceProfile, HeadTime, StemTime

IMAGE = 16
# Stages: out channels, kernel, stride, expanded channels of their blocks.
ROWS = (
    (8, 3, 1, [8]),
    (8, 3, 2, [16]),
    (12, 5, 1, [24, 12]),
    (12, 3, 2, [24]),
    (16, 3, 1, [32]),
    (16, 3, 1, [40]),
    (20, 3, 1, [40]),
)


def base(rows=ROWS, act="ReLU6", name="toy"):
    """A plain network of 7 stages for images of 16 px."""
    stem, side, stages = Conv(3, 8, 3, 2), IMAGE // 2, []
    channels = stem.out_channels
    for out, kernel, stride, widths in rows:
        blocks = []
        for index, width in enumerate(widths):
            blocks.append(Block(side, kernel, 1 if index else stride, channels, width, out))
            side, channels = blocks[-1].out_side, out
        stages.append((tuple(blocks),))
    return Model(name, act, stem, Conv(channels, 32, 1, 1), 0.1, tuple(stages))


def two(sync="annncna", name="toy2"):
    """The toy branched, with widths that differ between branches."""
    return branched(base(), sync, widths(), name)


def widths():
    """Widths of both branches: one of the base's and one narrower."""
    wide = [widths for *_, widths in ROWS]
    return wide, [[max(4, width - 4) for width in each] for each in wide]


@dataclass(frozen=True)
class Machine:
    """A modelled device: a time for each convolution of a block, and one for each MAC.

    Args:
        macs_per_ms: its speed.
        fixed: milliseconds of a convolution of any size.
    """

    macs_per_ms: float
    fixed: float = 0.0

    def block_ms(self, block):
        return self.fixed * (2 + block.expands) + block_macs(block) / self.macs_per_ms

    def stem_ms(self, side, kernel, stride, in_channels, out_channels):
        return in_channels * out_channels * (kernel * side // stride) ** 2 / self.macs_per_ms

    def head_ms(self, side, in_channels, features, classes):
        return (in_channels * side**2 + classes) * features / self.macs_per_ms


@dataclass(frozen=True)
class Wire:
    """A modelled link."""

    alpha: float = 0.0
    bytes_per_ms: float = float("inf")

    def transfer_ms(self, count):
        return self.alpha + count / self.bytes_per_ms


def profile_of(machine, name, link=None, model=None):
    """What a measurement of the toy's blocks, halved ones too, would be on a modelled device."""
    model = model or base()
    shapes = set()
    for block in model.blocks(0):
        shapes |= {
            replace(block, expanded=1),
            replace(block, expanded=1, out_channels=block.out_channels // 2),
        }
    blocks = []
    for shape in sorted(shapes, key=str):
        # As wide as its input it would not expand: 3 and 997 are no input's width.
        times = tuple((width, machine.block_ms(replace(shape, expanded=width))) for width in (3, 997))
        blocks.append(BlockTimes(BlockShape.of(shape), times))
    side, head = model.stages[-1][0][-1].out_side, model.head
    stem = (
        model.image_size,
        model.stem.kernel,
        model.stem.stride,
        model.stem.in_channels,
        model.stem.out_channels,
    )
    top = (side, head.in_channels, head.out_channels, 1000)
    return DeviceProfile(
        name,
        model.image_size,
        tuple(blocks),
        (StemTime(*stem, machine.stem_ms(*stem)),),
        (HeadTime(*top, machine.head_ms(*top)),),
        link=link,
    )
