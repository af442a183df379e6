import pytest

from neq.planning.gain import Gain


def test_a_gain_within_the_noise_of_the_split_is_none() -> None:
    assert Gain(0.5, 0.6, 10, 100).noise == pytest.approx((0.6 * 0.4 / 100) ** 0.5)
    assert Gain(0.5, 0.54, 10, 100).rate == 0  # .04 of .0498
    assert Gain(0.5, 0.6, 10, 100).rate == pytest.approx(0.01)
    assert Gain(0.5, 0.4, 10, 100).rate == 0
    assert Gain(0.5, 0.54, 10, 10_000).rate == pytest.approx(0.004)
