"""Search: W&B's distributions drawn by Optuna's samplers, and `early_terminate` as an Optuna pruner."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Protocol

import optuna

from neq.sweeps.parameters import Choice, Drawn, Parameter
from neq.sweeps.sweep_file import EarlyTerminate, Sweep
from neq.utils.errors import shown

# Quantiles are drawn from within (0, 1): those of a normal distribution are infinite at 0 and 1.
LEAST, MOST = 1e-9, 1 - 1e-9


class Suggests(Protocol):
    """The methods of a trial that draw values."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def draw(trial: Suggests, parameters: Mapping[str, Parameter]) -> dict[str, object]:
    """Draws a value of every parameter with the trial's sampler.

    Distributions that Optuna lacks (normal, beta, choices with probabilities) are drawn through their
    quantile, a uniform number that the storage shows as `NAME quantile`.

    Args:
        trial: a running trial; values that it was enqueued with are kept.
        parameters: by key or path.

    Source: W&B's documentation, "Distribution options for random and Bayesian search".
    """
    return {name: _drawn(trial, name, parameter) for name, parameter in sorted(parameters.items())}


def labels(values: tuple[object, ...]) -> tuple[Any, ...]:
    """The values of a choice as a storage accepts them: plain ones as they are, others as JSON.

    Args:
        values: each once.
    """
    plain = all(value is None or isinstance(value, bool | int | float | str) for value in values)
    if plain and len(set(values)) == len(values):  # 1 and true are one key of a set
        return values
    return tuple(json.dumps(value, sort_keys=True, default=str) for value in values)


def sampler(sweep: Sweep, number: int, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial, so that a random search draws the same runs however many workers share it.

    Args:
        sweep: whose method decides the kind of sampler.
        number: of the trial.
        seed: of the sweep.
    """
    mixed = (seed + number * 0x9E3779B1) % 2**32
    if sweep.method == "bayes":
        # Unfinished runs count as bad ones, so that workers do not all try the same region.
        return optuna.samplers.TPESampler(seed=mixed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=mixed)


def pruner(early: EarlyTerminate | None) -> optuna.pruners.BasePruner:
    """The pruner of a sweep's `early_terminate`.

    Args:
        early: None stops no run.
    """
    return optuna.pruners.NopPruner() if early is None else Hyperband(early)


class Hyperband(optuna.pruners.BasePruner):
    """Stops a run after the epochs of a band unless it is among the best 1/eta of those that got there.

    Optuna's own SuccessiveHalvingPruner has bands at a power of a whole eta alone.

    Args:
        early: bands and eta.

    Source: asynchronous successive halving, arXiv 1810.05934, algorithm 2, with W&B's bands.
    """

    def __init__(self, early: EarlyTerminate) -> None:
        self._early = early

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the run of a trial stops after the epoch that it reported last."""
        epoch = trial.last_step
        if epoch is None or epoch not in itertools.takewhile(lambda band: band <= epoch, self._early.bands()):
            return False
        value = trial.intermediate_values[epoch]
        arrived = [other.intermediate_values for other in study.get_trials(deepcopy=False)]
        sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        ranked = sorted(sign * values[epoch] for values in arrived if epoch in values)
        return sign * value > ranked[max(1, int(len(ranked) / self._early.eta)) - 1]


def _drawn(trial: Suggests, name: str, parameter: Parameter) -> object:
    if isinstance(parameter, Choice):
        return _chosen(trial, name, parameter)
    numbers, kind = parameter.numbers, parameter.distribution
    if kind == "int_uniform":
        return trial.suggest_int(name, int(numbers["min"]), int(numbers["max"]))
    value = _continuous(trial, name, parameter)
    if kind.startswith("q_"):
        quantum = numbers["q"]
        value = round(value / quantum) * quantum
        return int(value) if quantum == int(quantum) else value
    return value


def _chosen(trial: Suggests, name: str, choice: Choice) -> object:
    if len(choice.values) == 1:
        return choice.values[0]
    if choice.probabilities is None:
        shown_as = labels(choice.values)
        label = trial.suggest_categorical(name, shown_as)
        return choice.values[shown_as.index(label)]
    quantile, passed = _quantile(trial, name), 0.0
    possible = [
        (value, share) for value, share in zip(choice.values, choice.probabilities, strict=True) if share
    ]
    for value, share in possible:
        passed += share
        if quantile < passed:
            return value
    return possible[-1][0]


def _continuous(trial: Suggests, name: str, parameter: Drawn) -> float:
    numbers, kind = parameter.numbers, parameter.distribution.removeprefix("q_")
    if kind == "uniform":
        return trial.suggest_float(name, numbers["min"], numbers["max"])
    if kind in ("log_uniform_values", "inv_log_uniform_values"):
        return trial.suggest_float(name, numbers["min"], numbers["max"], log=True)
    if kind == "log_uniform":
        return trial.suggest_float(name, math.exp(numbers["min"]), math.exp(numbers["max"]), log=True)
    if kind == "inv_log_uniform":
        return trial.suggest_float(name, math.exp(-numbers["max"]), math.exp(-numbers["min"]), log=True)
    quantile = _quantile(trial, name)
    if kind == "normal":
        return NormalDist(numbers["mu"], numbers["sigma"]).inv_cdf(quantile)
    if kind == "log_normal":
        return math.exp(NormalDist(numbers["mu"], numbers["sigma"]).inv_cdf(quantile))
    assert kind == "beta", f"{shown(kind)} is not drawn"
    from scipy.special import betaincinv

    return float(betaincinv(numbers["a"], numbers["b"], quantile))


def _quantile(trial: Suggests, name: str) -> float:
    return trial.suggest_float(f"{name} quantile", LEAST, MOST)
