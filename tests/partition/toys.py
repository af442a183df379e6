"""A small network and its branched forms."""

from neq.partition import Block, Conv, Model, branched

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
