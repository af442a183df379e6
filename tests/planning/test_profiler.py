"""Choosing the plan of each window, with a clock and gains that are simulated."""

import math

import pytest

from neq.planning.gain import Gain, Mean
from neq.planning.profiler import pick, updated
from neq.utils.seeds import generator

PEAKS = {"all": 400, "half": 200, "few": 100}


def of(**rates: float) -> dict[str, Mean]:
    return {name: Mean(rate, 0.001) for name, rate in rates.items()}


def picked(means: dict[str, Mean], seed: int = 0, window: int = 0) -> tuple[str, bool]:
    return pick(means, PEAKS, generator(seed, "plan", 1, window))


def test_every_new_gain_counts_half() -> None:
    first = updated({}, "all", Gain(0.5, 0.7, 10, 400))
    assert first["all"].rate == pytest.approx(0.02)
    assert first["all"].noise == pytest.approx(math.sqrt(0.7 * 0.3 / 400) / 10)
    second = updated(first, "all", Gain(0.7, 0.7, 10, 400))
    assert second["all"].rate == pytest.approx(0.01)
    assert updated(second, "few", Gain(0.1, 0.2, 1, 400))["all"] == second["all"]
    assert first["all"].rate == pytest.approx(0.02)  # what was given is left


def test_the_best_mean_runs_and_within_a_standard_error_less_memory_does() -> None:
    seeds = [seed for seed in range(40) if not picked(of(all=0.1, half=0.05, few=0.01), seed)[1]]
    for seed in seeds:
        assert picked(of(all=0.1, half=0.05, few=0.01), seed) == ("all", False)
        assert picked(of(all=0.1, half=0.0995, few=0.0985), seed) == ("half", False)
        assert picked(of(all=0.0, half=0.0, few=0.0), seed) == ("few", False)
        assert picked(of(all=0.1, few=0.01), seed) == ("half", False)  # not tried yet


def test_one_window_in_ten_tries_another_plan_the_same_for_a_seed() -> None:
    means = of(all=0.1, half=0.05, few=0.01)
    choices = [picked(means, window=window) for window in range(2000)]
    assert choices == [picked(means, window=window) for window in range(2000)]
    assert choices != [picked(means, seed=1, window=window) for window in range(2000)]
    explored = [name for name, is_explored in choices if is_explored]
    assert 150 < len(explored) < 250
    assert set(explored) == {"half", "few"}
    assert pick(of(all=0.1), {"all": 1}, generator(0, "plan")) == ("all", False)  # nothing else fits


def accuracy(rates: dict[str, float], names: list[str], seconds: float) -> tuple[float, list[Gain]]:
    """Top-1 after equal times under plans that close a share of what is missing per second."""
    top1, gains = 0.3, []
    for name in names:
        before, top1 = top1, 0.9 - (0.9 - top1) * math.exp(-rates[name] * seconds)
        gains.append(Gain(before, top1, seconds, 2000))
    return top1, gains


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("best", sorted(PEAKS))
def test_what_is_chosen_is_within_a_point_of_the_best_survivor(seed: int, best: str) -> None:
    rates = {name: 0.02 if name == best else 0.006 for name in PEAKS}
    windows, seconds = 10, 40.0
    means = dict[str, Mean]()
    for name in PEAKS:  # probes, each from the same network
        means = updated(means, name, accuracy(rates, [name], 20.0)[1][0])
    ran: list[str] = []
    for window in range(windows):
        name, _ = picked(means, seed, window)
        ran.append(name)
        means = updated(means, name, accuracy(rates, ran, seconds)[1][-1])
    alone = {name: accuracy(rates, [name] * windows, seconds)[0] for name in PEAKS}
    assert accuracy(rates, ran, seconds)[0] >= max(alone.values()) - 0.01
    assert ran[0] == best or picked(means, seed, 0)[1]
