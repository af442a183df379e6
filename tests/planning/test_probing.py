import pytest

from neq.planning.probing import Gain, best_plan


def gain(
    after: float, seconds: float = 10.0, peak: int = 100, before: float = 0.5, images: int = 100
) -> Gain:
    return Gain(before, after, seconds, images, peak)


def test_a_gain_within_the_noise_of_the_split_is_none() -> None:
    assert gain(0.6).noise == pytest.approx((0.6 * 0.4 / 100) ** 0.5)
    assert gain(0.54).rate == 0  # .04 of .0498
    assert gain(0.6).rate == pytest.approx(0.01)
    assert gain(0.4).rate == 0
    assert gain(0.54, images=10_000).rate == pytest.approx(0.004)


def test_the_highest_gain_per_second_wins() -> None:
    assert best_plan({3: gain(0.7, peak=10), 5: gain(0.9, peak=99)}) == 5
    assert best_plan({3: gain(0.9, seconds=40), 5: gain(0.8, seconds=10)}) == 5


def test_within_a_standard_error_less_memory_wins() -> None:
    # .03 top-1 is less than the noise of .8 on 100 images, .04.
    assert best_plan({0: gain(0.8, peak=100), 1: gain(0.77, peak=40)}) == 1
    assert best_plan({0: gain(0.8, peak=100, images=10_000), 1: gain(0.77, peak=40, images=10_000)}) == 0


def test_where_nothing_gains_the_least_memory_wins() -> None:
    assert best_plan({0: gain(0.5, peak=100), 1: gain(0.45, peak=60), 2: gain(0.52, peak=80)}) == 1
