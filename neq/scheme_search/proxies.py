"""Proxies of contributions: scores of the parts of a scheme from one pass after the head has been fitted.

With the importance I_i of neuron i by a criterion, the score of share s of conv l, in per cent, is

    score_ls = 100 sum_{i in T(l, s)} I_i / sum_i I_i

where T(l, s) are the neurons that SU updates: the share with the largest weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from neq.config import POLICIES
from neq.experiment.run import run_training
from neq.networks.weights import load_weights
from neq.runs import load_run
from neq.runs.selection_file import read_selection_history
from neq.scheme_search.contributions import Measured, Part, Scores
from neq.scheme_search.costs import SchemeCosts
from neq.selection import CRITERIA, StaticScheme
from neq.training import TrainingDiverged
from neq.training.context import importance_of
from neq.utils.errors import UserError

VELOCITY = "velocity"


def proxy_scores(costs: SchemeCosts, head: Measured, parts: Sequence[Part], criterion: str = "") -> Scores:
    """The scores of parts by a criterion of importance, mean over the head's runs.

    Measuring stays within the memory that a budget in bytes allows.

    Args:
        costs: of the network's schemes; the network's weights become those of the runs.
        head: the result of training the head alone.
        parts: to score.
        criterion: one of CRITERIA; empty: that of the run's configuration.

    Raises:
        UserError: the network of a run is missing or damaged.
    """
    criterion, scores = criterion or costs.config.NEq_config.importance, dict.fromkeys(parts, 0.0)
    for run in head.runs:
        load_weights(costs.training.network, None, str(load_run(Path(run)).best_weights))
        for part, score in _sums(costs, importance_of(costs.training, 0, criterion).neurons, parts).items():
            scores[part] += score / len(head.runs)
    return {criterion: scores}


def velocity_scores(costs: SchemeCosts, parts: Sequence[Part], runs: Path) -> Scores:
    """The scores of parts by |velocity| over one epoch that updates random neurons within the budget."""
    config = costs.config
    neq = config.NEq_config.model_copy(update={"neuron_selection": VELOCITY, "initialization": "random"})
    epochs = config.run_config.model_copy(update={"n_epochs": 1, "warmup_epochs": 0})
    config = config.model_copy(update={"NEq_config": neq, "run_config": epochs, "resume": True})
    measured = read_selection_history(run_training(config, runs=runs)).velocity
    assert measured is not None, "the policy measures it every epoch"
    return {VELOCITY: _sums(costs, torch.from_numpy(measured[0]).double().abs(), parts)}


def all_proxies(
    costs: SchemeCosts, head: Measured, parts: Sequence[Part], runs: Path, notes: Callable[[str], object]
) -> Scores:
    """The scores of parts by every proxy; those that cannot be measured are left out, with a note."""
    found: dict[str, Mapping[Part, float]] = {}
    notes(f"proxies: {len(parts)} parts are scored on the network of the head's run")
    try:
        for criterion in CRITERIA:
            found |= proxy_scores(costs, head, parts, criterion)
        if costs.config.NEq_config.unit in POLICIES[VELOCITY].units:
            found |= velocity_scores(costs, parts, runs)
    except (UserError, TrainingDiverged) as error:
        notes(f"proxies that follow are not compared: {error}")
    return found


def _sums(costs: SchemeCosts, importance: Tensor, parts: Sequence[Part]) -> dict[Part, float]:
    total = float(importance.sum()) or 1.0
    chosen = {(conv, share): costs.chosen(StaticScheme((conv,), (share,))) for conv, share in parts}
    return {part: 100 * float(importance[neurons].sum()) / total for part, neurons in chosen.items()}
