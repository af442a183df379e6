"""What a configuration of a run needs: memory by the profile of its step, time by the device's latency model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from neq.budget import CostModel, Latency
from neq.config import Config
from neq.planning.configurations import Configuration, settings_of
from neq.planning.rules import Estimate
from neq.training import Training

# The neurons that stand for those which a policy will choose once it has measured them: the last ones.
_STAND_IN = {"neuron_selection": "last", "initialization": "last", "cost_aware": False, "scheme": None}


@dataclass(frozen=True)
class _Learned:
    """What learns under one `Learning`.

    Args:
        config: of the run, neither cut nor accumulated.
        run: the same with the policy that stands for the run's.
        model: of its step.
        chosen: its neurons, bool [N].
    """

    config: Config
    run: Training
    model: CostModel
    chosen: Tensor


class Estimator:
    """Estimates the configurations of one run; called with each.

    Args:
        run: opened, of the settings below.
        base: the file that it starts from.
        overrides: settings that are given.
        latency: of the step on the device.
    """

    def __init__(
        self, run: Training, base: Mapping[str, object], overrides: Mapping[str, object], latency: Latency
    ) -> None:
        self._run, self._base, self._overrides, self._latency = run, base, dict(overrides), latency
        self._learned = lru_cache(maxsize=None)(self._learn)

    def __call__(self, configuration: Configuration) -> Estimate:
        """The estimate of a configuration."""
        learned = self._learned(configuration.learning)
        spec = replace(learned.model.spec, micro_batch=configuration.micro_batch)
        ...

    def settings(self, configuration: Configuration, cuts: tuple[str, ...]) -> dict[str, Any]:
        """The settings of the run under a configuration, its budget among them."""
        learned = self._learned(configuration.learning)
        settings = settings_of(configuration, self._batch, cuts)
        if configuration.learning.share is not None:
            spec = replace(
                learned.model.spec, micro_batch=settings.get("micro_batch_size"), checkpoint_cuts=tuple(cuts)
            )
            model = CostModel(self._run.network, self._run.table, spec)
            cost = model.step(self._run.table.selection(learned.chosen))
            settings |= {"budget": cost.training_bytes, "budget_unit": "bytes"}
        return settings
