"""The networks of SyncNAS: three plain ones, and each branched for two devices at the plain one's latency.

Source: Kang et al., "SyncNAS", LCTES 2023, model files.
"""

from __future__ import annotations

from collections.abc import Sequence

from neq.partition.branching import branched
from neq.partition.model import Block, Blocks, Conv, Model
from neq.utils.errors import unknown_name

_IMAGE = 224
# Stages: out channels, kernel, stride of the first block, and the widths (expanded channels) of its blocks.
Rows = Sequence[tuple[int, int, int, Sequence[int]]]
_MOBILENET_V2: Rows = (
    (16, 3, 1, [32]),
    (24, 3, 2, [96, 144]),
    (32, 3, 2, [144, 192, 192]),
    (64, 3, 2, [192, 384, 384, 384]),
    (96, 3, 1, [384, 576, 576]),
    (160, 3, 2, [576, 960, 960]),
    (320, 3, 1, [960]),
)
_MNASNET_B1: Rows = (
    (16, 3, 1, [32]),
    (24, 3, 2, [48, 72, 72]),
    (40, 5, 2, [72, 120, 120]),
    (80, 5, 2, [240, 480, 480]),
    (96, 3, 1, [480, 576]),
    (192, 5, 2, [576, 1152, 1152, 1152]),
    (320, 3, 1, [1152]),
)
_FBNET_C: Rows = (
    (16, 3, 1, [16]),
    (24, 3, 2, [96, 24, 24]),
    (32, 5, 2, [144, 96, 192, 192]),  # its last block has a kernel of 3
    (64, 5, 2, [192, 192, 384, 384]),
    (112, 5, 1, [384, 672, 672, 336]),
    (184, 5, 2, [672, 1104, 1104, 1104]),
    (352, 3, 1, [1104]),
)
_OTHER_KERNELS = {("fbnet_c", 2, 3): 3}  # by network, stage and block

# Name -> base, syncs, momentum of batch norms, name in its file, widths of the branches by stage.
_BRANCHED: dict[str, tuple[str, str, float, str, Sequence[Sequence[Sequence[int]]]]] = {
    "syncnas_mobilenet_v2_100": (
        "mobilenet_v2", "annnana", 0.1, "sync3_046_aaa",
        (
            ([20], [88, 116], [128, 200, 200], [212, 324, 324, 324], [336, 576, 576], [540, 852, 852], [884]),
            ([12], [88, 120], [116, 164, 164], [160, 260, 256, 256], [268, 460, 456], [420, 592, 592], [568]),
        ),
    ),
    "syncnas_mnasnet_b1_100": (
        "mnasnet_b1", "cnnnana", 0.01, "sync3_046_caa",
        (
            ([16], [48, 80, 80], [60, 96, 96], [224, 452, 452], [476, 564], [548, 1040, 1040, 1044], [1064]),
            ([12], [48, 80, 80], [44, 68, 72], [168, 380, 384], [404, 448], [404, 576, 576, 580], [552]),
        ),
    ),
    "syncnas_fbnet_c_100": (
        "fbnet_c", "nnnnaaa", 0.1, "sync3_456_aaa",
        (
            ([20], [76, 20, 16], [120, 88, 164, 152], [204, 172, 320, 320], [340, 624, 624, 336],
             [604, 936, 940, 940], [980]),
            ([16], [72, 8, 12], [100, 40, 120, 120], [120, 76, 220, 220], [264, 476, 476, 224],
             [404, 512, 512, 512], [520]),
        ),
    ),
}  # fmt: skip
_PLAIN: dict[str, tuple[str, Conv, Conv, float, Rows]] = {
    "mobilenet_v2": ("ReLU6", Conv(3, 32, 3, 2), Conv(320, 1280, 1, 1), 0.1, _MOBILENET_V2),
    "mnasnet_b1": ("ReLU", Conv(3, 32, 3, 2), Conv(320, 1280, 1, 1), 0.0003, _MNASNET_B1),
    "fbnet_c": ("ReLU", Conv(3, 16, 3, 2), Conv(352, 1984, 1, 1), 0.1, _FBNET_C),
}
BASES = tuple(_PLAIN)
PUBLISHED = (*BASES, *_BRANCHED)


def published(name: str) -> Model:
    """A network of SyncNAS by name, for images of 224 px.

    Raises:
        UserError: there is none of that name.
    """
    if name in _BRANCHED:
        base, sync, momentum, own_name, widths = _BRANCHED[name]
        return branched(_plain(base), sync, widths, own_name, momentum)
    if name not in _PLAIN:
        raise unknown_name("network", name, PUBLISHED)
    return _plain(name)


def _plain(name: str) -> Model:
    act, stem, head, momentum, rows = _PLAIN[name]
    side, channels, stages = _IMAGE // stem.stride, stem.out_channels, []
    for number, (out, kernel, stride, widths) in enumerate(rows):
        blocks: Blocks = ()
        for index, width in enumerate(widths):
            size = _OTHER_KERNELS.get((name, number, index), kernel)
            blocks += (Block(side, size, 1 if index else stride, channels, width, out),)
            side, channels = blocks[-1].out_side, out
        stages.append((blocks,))
    return Model(name, act, stem, head, momentum, tuple(stages))
