"""Scales and zero points of activations from values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neq.int8.calibrate import least_squares, min_max, observe, percentile, quantization
from neq.int8.trace import read_network
from tests.int8.float_toys import excited, pictures

ENDS = st.floats(-1e4, 1e4, width=32)


@given(one=ENDS, other=ENDS)
def test_codes_cover_a_range_and_hold_zero(one, other):
    low, high = min(one, other), max(one, other)
    found = quantization(low, high)
    real = [(code - found.zero) * found.scale for code in (-128, 127)]
    assert real[0] - found.scale / 2 <= min(low, 0) + 1e-30
    assert max(high, 0) <= real[1] + found.scale / 2 + 1e-30
    if high - low > 1e-30 and max(high, 0) - min(low, 0) > 1e-30:
        assert found.scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)


def test_the_codes_of_a_relu6_and_of_no_values():
    relu6, dead = quantization(0, 6), quantization(0, 0)
    assert (relu6.scale, relu6.zero) == (pytest.approx(6 / 255), -128)
    assert (dead.scale, dead.zero) == (pytest.approx(1 / 255), -128)


def test_outliers_widen_min_max_alone():
    values = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    values[7] = 500
    assert min_max(values) == (float(values.min()), 500)
    low, high = percentile(values)
    assert -5 < low < -3 < 3 < high < 5
    errors = []
    for choose in (min_max, percentile, least_squares):
        found = quantization(*choose(values[values < 100]))
        rounded = torch.fake_quantize_per_tensor_affine(
            values[values < 100], found.scale, found.zero, -128, 127
        )
        errors.append(float((rounded - values[values < 100]).square().mean()))
    assert errors[2] <= min(errors[:2])


def test_values_are_drawn_from_all_images_with_the_extremes():
    network, x = read_network(excited(), 16), pictures(20)
    seen = {}
    network.run(x, lambda name, out: seen.update({name: out}))
    found = observe(network, x, batch_size=6)
    assert found.keys() == seen.keys()
    for name, values in found.items():
        assert min_max(values) == pytest.approx(min_max(seen[name]), rel=1e-4, abs=1e-5)
        assert torch.isin(values.round(decimals=3), seen[name].round(decimals=3)).double().mean() > 0.99
    again = observe(network, x, batch_size=6)
    assert all(torch.equal(found[name], again[name]) for name in found)
