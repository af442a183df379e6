import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from neq.partition.device_profile import (
    BlockShape,
    BlockTimes,
    DeviceProfile,
    HeadTime,
    LinkProfile,
    NetworkTime,
    StemTime,
)
from neq.utils.errors import UserError

SHAPE = BlockShape(56, 3, 1, 24, 24)


@dataclass(frozen=True)
class Block:
    side: int
    kernel: int
    stride: int
    in_channels: int
    expanded: int
    out_channels: int


def block(expanded: int, side: int = 56) -> Block:
    return Block(side, 3, 1, 24, expanded, 24)


def profile(**changes: object) -> DeviceProfile:
    values = {
        "name": "board",
        "image_size": 224,
        "blocks": (BlockTimes(SHAPE, ((8, 1.0), (16, 1.5), (48, 3.5)), 0.5),),
        "stems": (StemTime(224, 3, 2, 3, 32, 1.25),),
        "heads": (HeadTime(7, 320, 1280, 1000, 2.5),),
        "environment": {"threads": 1, "cpu": "a CPU"},
        "networks": (NetworkTime("mobilenet_v2", 42.0, 43.5),),
        "link": LinkProfile(0.25, 1e6, ((4, 0.25), (4_000_000, 4.25)), "127.0.0.1"),
        "date": "2030-01-02T03:04:05+00:00",
        **changes,
    }
    return DeviceProfile(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expanded", "ms"),
    [(8, 1.0), (12, 1.25), (16, 1.5), (40, 3.0), (48, 3.5), (80, 5.5), (4, 0.75), (24, 0.5)],
)
def test_a_block_is_linear_between_and_beyond_its_widths(expanded: int, ms: float) -> None:
    assert profile().block_ms(block(expanded)) == pytest.approx(ms)


def test_a_block_is_never_below_zero() -> None:
    steep = BlockTimes(SHAPE, ((40, 1.0), (48, 2.0)))
    assert steep.at(4) == 0.0
    assert steep.at(24) == 0.0  # no plain block was measured: as one that expands


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(UserError, match=r"'board' .* has no block 24-24 k3 stride 1 at 28 x 28; measure"):
        profile().block_ms(block(8, side=28))
    with pytest.raises(UserError, match="has no stem 3-16 k3 stride 2 at 224 x 224"):
        profile().stem_ms(224, 3, 2, 3, 16)
    with pytest.raises(UserError, match="has no head 320-1280 at 7 x 7 with 10 classes"):
        profile().head_ms(7, 320, 1280, 10)
    assert profile().stem_ms(224, 3, 2, 3, 32) == 1.25
    assert profile().head_ms(7, 320, 1280, 1000) == 2.5


def test_an_exchange_is_linear_in_its_bytes() -> None:
    assert LinkProfile(0.25, 1e6).transfer_ms(500_000) == pytest.approx(0.75)


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    for given in (profile(), profile(link=None, networks=())):
        given.write(path)
        assert DeviceProfile.read(path) == given
    assert [each.name for each in tmp_path.iterdir()] == ["board.json"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": 2}, "is no device profile of this version"),
        ({"blocks": []}, "it has no blocks"),
        ({"blocks": [{"shape": 3}]}, "blocks.0.shape 3: "),
        ({"stems": [{}]}, "stems.0.side {}: side is missing"),
        ({"image_size": "224"}, "image_size '224': an integer is expected"),
        ({"clock": "sun"}, "clock 'sun'"),
        ({"link": {"alpha_ms": -1.0, "bytes_per_ms": 1.0}}, r"link of -1.0 ms"),
        ({"link": {"alpha_ms": 1.0, "bytes_per_ms": 0.0}}, r"0.0 bytes per ms"),
        ({"networks": [{"name": "a", "whole_ms": 0.0, "parts_ms": 1.0}]}, "network 'a' takes 0.0 ms"),
    ],
)
def test_a_file_that_is_no_profile(tmp_path: Path, change: dict[str, object], line: str) -> None:
    path = tmp_path / "board.json"
    profile().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=line) as error:
        DeviceProfile.read(path)
    assert str(error.value).endswith("measure it again with neq partition profile")


@pytest.mark.parametrize(
    ("times", "line"),
    [
        (BlockTimes(SHAPE, ((8, 1.0),)), "has the widths"),
        (BlockTimes(SHAPE, ((8, 1.0), (8, 2.0))), "has the widths"),
        (BlockTimes(SHAPE, ((16, 1.0), (8, 2.0))), "has the widths"),
        (BlockTimes(SHAPE, ((8, 2.0), (16, 1.0))), "times that fall"),
        (BlockTimes(SHAPE, ((8, 0.0), (16, 1.0))), "takes 0.0 ms"),
        (BlockTimes(SHAPE, ((8, 1.0), (16, float("nan")))), "takes nan ms"),
        (BlockTimes(SHAPE, ((8, 1.0), (16, 2.0)), -1.0), "takes -1.0 ms"),
        (BlockTimes(BlockShape(0, 3, 1, 24, 24), ((8, 1.0), (16, 2.0))), "has a size of 0"),
    ],
)
def test_times_that_cannot_be(tmp_path: Path, times: BlockTimes, line: str) -> None:
    path = tmp_path / "board.json"
    profile(blocks=(times,)).write(path)
    with pytest.raises(UserError, match=line):
        DeviceProfile.read(path)


def test_the_same_part_twice(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    profile(stems=profile().stems * 2).write(path)
    with pytest.raises(UserError, match="the same part is in it twice"):
        DeviceProfile.read(path)


def test_a_file_that_is_damaged_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    with pytest.raises(UserError, match="cannot be read"):
        DeviceProfile.read(path)
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        DeviceProfile.read(path)
