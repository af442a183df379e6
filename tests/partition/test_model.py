"""Models are checked when they are made; their segments; other image sizes."""

from dataclasses import replace

import pytest

from neq.partition import Block, Conv, Model, published
from neq.utils.errors import UserError
from tests.partition.toys import base, two


def test_a_block_expands_and_skips_by_its_shape():
    plain = Block(7, 3, 1, 16, 16, 16)
    assert (plain.expands, plain.skips, plain.out_side) == (False, True, 7)
    narrowing = Block(7, 3, 2, 24, 8, 24)
    assert (narrowing.expands, narrowing.skips, narrowing.out_side) == (True, False, 4)


def test_segments_end_at_syncs():
    assert [(each.number, each.first, each.stop, each.sync) for each in two().segments] == [
        (0, 0, 1, "a"),
        (1, 1, 5, "c"),
        (2, 5, 7, "a"),
    ]
    (only,) = base().segments
    assert (only.first, only.stop, only.sync) == (0, 7, "")
    blocks = [block for segment in two().segments for block in two().blocks(1, segment)]
    assert blocks == list(two().blocks(1))


@pytest.mark.parametrize("size", [13, 16, 32, 97])
def test_sides_follow_the_image(size):
    at = two().at(size)
    side = -(-size // 2)
    for block in at.blocks(0):
        assert block.side == side
        side = -(-side // block.stride)
    assert at.at(16) == two()


def with_block(model, stage, branch, **changes):
    """The model with the first block of a stage changed."""
    stages = [[list(blocks) for blocks in each] for each in model.stages]
    stages[stage][branch][0] = replace(stages[stage][branch][0], **changes)
    return replace(model, stages=tuple(tuple(map(tuple, each)) for each in stages))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda m: replace(m, name=""), "name '' is not allowed"),
        (lambda m: replace(m, name="two\nlines"), "printable characters"),
        (lambda m: replace(m, act="GELU"), "act 'GELU' is not allowed: ReLU or ReLU6"),
        (lambda m: replace(m, bn_momentum=float("nan")), "bn_momentum nan is not allowed"),
        (lambda m: replace(m, stages=m.stages[:6]), "6 stages are given; 7 are expected"),
        (lambda m: replace(m, sync=tuple("annnan")), "sync has 6 values; 7 are expected"),
        (lambda m: replace(m, sync=tuple("axnnana")), "sync 'x' behind stage 1 is not allowed: n, a or c"),
        (lambda m: replace(m, sync=tuple("annnann")), "sync n behind stage 6 is not allowed"),
        (lambda m: replace(m, sync=None), "stage 0 has 2 branches; 1 branch without sync is expected"),
        (lambda m: replace(m, stem=Conv(3, 8, 4, 2)), "stem: kernel 4 is not allowed: an odd number"),
        (lambda m: replace(m, stem=Conv(3, 0, 3, 2)), "stem: 0 channels are not allowed"),
        (
            lambda m: replace(m, stem=Conv(3, 9, 3, 2)),
            "branch 0, block 0 takes 8 channels of side 8, but gets 9",
        ),
        (lambda m: replace(m, head=Conv(20, 32, 3, 1)), "head has a kernel or stride above 1"),
        (lambda m: replace(m, head=Conv(21, 32, 1, 1)), "head takes 21 channels, but gets 20"),
        (lambda m: with_block(m, 1, 1, stride=9), "stage 1, branch 1, block 0: stride 9 is not allowed"),
        (lambda m: with_block(m, 1, 1, expanded=10**9), "1000000000 channels are not allowed: 1 to 16384"),
        (lambda m: with_block(m, 1, 0, side=9), "takes 8 channels of side 9, but gets 8 of side 8"),
        (
            lambda m: with_block(m, 0, 1, out_channels=12),
            "sync a behind stage 0: 8 and 12 channels cannot be",
        ),
        (lambda m: with_block(m, 4, 1, stride=2), "sync c behind stage 4: its sides 2 and 1 differ"),
        (
            lambda m: with_block(m, 4, 1, out_channels=12),
            "takes 16 channels of side 2, but gets 20 of side 2",
        ),
        (lambda m: with_block(m, 5, 1, in_channels=8), "stage 5, branch 1, block 0 takes 8 channels"),
    ],
)
def test_faults_are_one_line(change, fault):
    with pytest.raises(UserError) as caught:
        change(two())
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unequal_block_counts_and_huge_networks_are_refused():
    model = two()
    stages = list(model.stages)
    stages[2] = (stages[2][0], stages[2][1][:1])
    with pytest.raises(UserError, match="stage 2 has branches of 1 and 2 blocks; give as many"):
        replace(model, stages=tuple(stages))
    wide = Block(8, 3, 1, 16384, 16384, 16384)
    with pytest.raises(UserError, match="parameters; up to 100,000,000 are allowed"):
        Model("wide", "ReLU", Conv(3, 16384, 3, 2), Conv(16384, 8, 1, 1), 0.1, (((wide,),),) * 7)


def test_huge_maps_are_refused():
    with pytest.raises(
        UserError, match=r"block 0 has maps of 68,719,476,736 values; up to 1,000,000,000 are"
    ):
        with_block(two().at(4096), 0, 0, expanded=16384)
    with pytest.raises(UserError, match=r"head has maps of 4,294,967,296 values"):
        replace(two().at(4096), head=Conv(20, 16384, 1, 1))


def test_published_images_are_of_224_px():
    assert published("fbnet_c").image_size == 224
