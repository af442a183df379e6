"""The accuracy profiler over time: which of the plans that fit trains a task's next window.

Each plan has a mean of its gains (validation top-1 per second, evaluation included) in which every new one
counts half. The plan with the highest mean trains, or within a standard error of it the one with the least
memory; in one of ten windows another one is tried.

Source: Xu et al., MPOptimizer, FGCS 164 (2025) 107600 (gain per second of each memory configuration).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from neq.planning.gain import Gain, Mean

DECAY = 0.5
EXPLORED = 0.1  # share of the windows in which another plan is tried
WINDOWS = 10  # in a deadline


Means = Mapping[str, Mean]


def updated(means: Means, name: str, gain: Gain) -> dict[str, Mean]:
    """The means after a further gain.

    Args:
        means: by the name of the plan.
        name: of the plan that gained.
        gain: that it made.
    """
    former = means.get(name)
    rate = gain.rate if former is None else DECAY * former.rate + (1 - DECAY) * gain.rate
    return {**means, name: Mean(rate, gain.noise / gain.seconds)}


def pick(means: Means, peaks: Mapping[str, int], stream: torch.Generator) -> tuple[str, bool]:
    """The plan of the next window, and whether it is explored.

    Args:
        means: by the name of the plan; one without a mean comes before those that have one.
        peaks: predicted bytes of each plan that may run, the preferred first.
        stream: of random numbers, one for each window.
    """
    best = _best(means, peaks)
    others = [name for name in peaks if name != best]
    if others and float(torch.rand((), generator=stream)) < EXPLORED:
        return others[int(torch.randint(len(others), (), generator=stream))], True
    return best, False


def _best(means: Means, peaks: Mapping[str, int]) -> str:
    untried = next((name for name in peaks if name not in means), None)
    if untried is not None:
        return untried
    best = max((means[name] for name in peaks), key=lambda mean: mean.rate)
    tied = [name for name in peaks if means[name].rate >= best.rate - best.noise]
    return min(tied, key=lambda name: peaks[name])
