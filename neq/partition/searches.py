"""The ways to search strategies, each asked for one and told its reward."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import numpy as np
import optuna

from neq.partition.model import STAGES, SYNCS
from neq.partition.strategies import Sync, strategies
from neq.partition.tree import TreeSearch

_REDRAWS = 50


class StrategySearch(Protocol):
    """A search of strategies; results may be told in any order, also of strategies not asked for."""

    def ask(self) -> Sync | None:
        """A strategy that was neither asked for nor told before; None where there is none left."""

    def tell(self, sync: Sync, reward: float | None, /) -> None:
        """Records a result; None: there are no widths for the strategy."""


class ListSearch:
    """A search in a fixed order.

    Args:
        order: all strategies.
    """

    def __init__(self, order: list[Sync]) -> None:
        self._order, self._taken = order, set[Sync]()

    def ask(self) -> Sync | None:
        """The first that is left."""
        found = next((sync for sync in self._order if sync not in self._taken), None)
        if found is not None:
            self._taken.add(found)
        return found

    def tell(self, sync: Sync, reward: float | None) -> None:
        """Strikes a strategy off."""
        self._taken.add(sync)


class TpeSearch:
    """Optuna's TPE over the seven kinds of sync; a strategy that it draws again is drawn anew.

    Args:
        seed: of the draws, which depend on it and on how many strategies were asked for.

    Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._trials = seed, dict[Sync, optuna.Trial]()
        self._taken = set[Sync]()
        self._kinds: dict[str, optuna.distributions.BaseDistribution] = {
            f"stage {stage}": optuna.distributions.CategoricalDistribution(SYNCS[stage == STAGES - 1 :])
            for stage in range(STAGES)
        }
        previous = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize")
        optuna.logging.set_verbosity(previous)

    def ask(self) -> Sync | None:
        """A strategy where the density of good ones is high."""
        left = [sync for sync in strategies() if sync not in self._taken]
        if not left:
            return None
        seed = int(np.random.default_rng([self._seed, len(self._taken)]).integers(2**32))
        with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        for _ in range(_REDRAWS):
            trial = self._study.ask(self._kinds)
            sync = tuple(trial.params[name] for name in self._kinds)
            if sync not in self._taken:
                break
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            sync = left[np.random.default_rng(seed).integers(len(left))]
            trial = self._study.ask(self._kinds)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if trial.params == dict(zip(self._kinds, sync, strict=True)):
            self._trials[sync] = trial
        self._taken.add(sync)
        return sync

    def tell(self, sync: Sync, reward: float | None) -> None:
        """Adds a result; 0 where there are no widths."""
        self._taken.add(sync)
        trial = self._trials.pop(sync, None)
        if trial is not None:
            self._study.tell(trial, reward or 0.0)
            return
        params = dict(zip(self._kinds, sync, strict=True))
        self._study.add_trial(
            optuna.trial.create_trial(params=params, distributions=self._kinds, value=reward or 0.0)
        )


def _random(seed: int) -> ListSearch:
    every = strategies()
    return ListSearch([every[number] for number in np.random.default_rng(seed).permutation(len(every))])


# Name -> a search from a seed.
SEARCHES: dict[str, Callable[[int], StrategySearch]] = {
    "tree": TreeSearch,
    "published": lambda seed: TreeSearch(seed, "published", is_published=True),
    "tpe": TpeSearch,
    "random": _random,
    "exhaustive": lambda seed: ListSearch(strategies()),
}
