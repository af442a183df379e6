"""Rows of bytes that maps are kept in."""

import pytest
import torch

from neq.data.map_format import MAP_PRECISIONS, MapFormat


def of_layout(kind):
    x = torch.randn(4, 6, 3, 5)
    return {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "features": x.flatten(1),
        "tokens": x.flatten(2).transpose(1, 2),
        "one pixel": x[:, :, :1, :1].contiguous(memory_format=torch.channels_last),
    }[kind]


@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "features", "tokens", "one pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_exact_maps_come_back_with_their_bits_and_their_layout(kind, dtype):
    maps = of_layout(kind).to(dtype)
    kept = MapFormat.of(maps, "exact")
    rows = kept.rows(maps)
    assert rows.shape == (4, kept.row_bytes) == (4, maps[0].nbytes)
    assert rows.dtype == torch.uint8
    back = kept.maps(rows[[2, 0, 2]])
    assert torch.equal(back, maps[[2, 0, 2]])
    assert (back.stride(), back.dtype) == (maps.stride(), dtype)
    maps.zero_()
    assert rows.any()


@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "features", "tokens"])
def test_rounded_maps_are_near_and_smaller(kind):
    maps = of_layout(kind) * 3
    bounds = {"exact": 0, "fp16": 2**-11, "bf16": 2**-8, "int8": 0.5 / 127}
    assert set(bounds) == set(MAP_PRECISIONS)
    for precision, bound in bounds.items():
        kept = MapFormat.of(maps, precision)
        back = kept.maps(kept.rows(maps))
        assert back.stride() == maps.stride()
        largest = maps.abs().flatten(2).amax(2) if maps.dim() > 2 else maps.abs()
        scale = largest.view(*largest.shape, *(1,) * (maps.dim() - 2)) if precision == "int8" else maps.abs()
        assert ((back - maps).abs() <= 1.001 * bound * scale).all(), precision
        # What is rounded once is not rounded again, so that a map is the same in every epoch.
        if precision != "int8":
            assert torch.equal(kept.maps(kept.rows(back)), back)
        values = maps[0].numel()
        assert kept.row_bytes == {"exact": 4 * values, "int8": values + 4 * maps.shape[1]}.get(
            precision, 2 * values
        )


def test_int8_keeps_channels_of_zeros():
    maps = torch.zeros(2, 3, 4, 4)
    kept = MapFormat.of(maps, "int8")
    assert torch.equal(kept.maps(kept.rows(maps)), maps)


def test_codes_are_kept_as_they_are():
    maps = torch.randint(-128, 128, (2, 3, 4, 4), dtype=torch.int8)
    kept = MapFormat.of(maps, "fp16")
    assert (kept.precision, kept.row_bytes) == ("exact", 48)
    assert torch.equal(kept.maps(kept.rows(maps)), maps)


def test_maps_with_gaps_have_no_format():
    maps = torch.randn(4, 6, 4, 4)
    for odd in (maps[:, ::2], maps[::2], maps[:, :1].expand(4, 6, 4, 4), maps.transpose(0, 1), maps[:, :0]):
        assert MapFormat.of(odd, "exact") is None
    assert MapFormat.of(torch.randn(4), "exact") is None
