from collections.abc import Mapping

from neq.planning.gain import Gain
from neq.planning.probing import best_plan


def gain(after: float, seconds: float = 10.0, before: float = 0.5, images: int = 100) -> Gain:
    return Gain(before, after, seconds, images)


def best(gains: Mapping[int, Gain], **peaks: int) -> int:
    return best_plan(gains, {number: peaks.get(f"of_{number}", 100) for number in gains})


def test_the_highest_gain_per_second_wins() -> None:
    assert best({3: gain(0.7), 5: gain(0.9)}, of_3=10) == 5
    assert best({3: gain(0.9, seconds=40), 5: gain(0.8, seconds=10)}) == 5


def test_within_a_standard_error_less_memory_wins() -> None:
    # .03 top-1 is less than the noise of .8 on 100 images, .04.
    assert best({0: gain(0.8), 1: gain(0.77)}, of_1=40) == 1
    assert best({0: gain(0.8, images=10_000), 1: gain(0.77, images=10_000)}, of_1=40) == 0


def test_where_nothing_gains_the_least_memory_wins() -> None:
    assert best({0: gain(0.5), 1: gain(0.45), 2: gain(0.52)}, of_1=60, of_2=80) == 1
