"""What a configuration of a run needs: memory by the step's profile, time by the device's latency model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from neq.budget import CostModel
from neq.budget.peak import StepProfile
from neq.planning.configurations import Configuration
from neq.planning.rules import Estimate
from neq.training import Training

# The budget of the neurons that stand for those which a policy will choose: the last ones, by their work.
_STAND_IN = {"neuron_selection": "last", "initialization": "last", "cost_aware": False}


@dataclass(frozen=True)
class _Learned:
    """What learns under one `Learning`.

    Args:
        run: with the settings of it, neither cut nor accumulated.
        model: of its step.
        chosen: its neurons, or those that stand for them, bool [N].
        profile: of its step.
        held: bytes of all that is there beside a step: weights, state, values to compare with.
    """

    run: Training
    model: CostModel
    chosen: Tensor
    profile: StepProfile
    held: int


class Estimator:
    """Estimates the configurations of one run; called with each.

    Args:
        run: opened, of the settings below.
        base: the file that it starts from.
        overrides: settings that are given.
        epochs: that it trains.
    """

    def __init__(self, run: Training, base: Mapping[str, object], overrides: Mapping[str, object]) -> None:
        self._run, self._base, self._overrides = run, base, overrides
        self._learned = lru_cache(maxsize=None)(self._learn)

    def __call__(self, configuration: Configuration) -> Estimate:
        """The estimate of a configuration."""
        learned = self._learned(configuration.learning)
