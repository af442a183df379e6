"""The scheme of the largest total contribution within a budget: by integer programming, or by evolution.

Of each conv at most one share is chosen, x_ls in {0, 1}:

    maximize  sum_ls gain_ls x_ls   subject to   base + sum_ls cost_ls x_ls + d <= limit,
    d >= depth_l sum_s x_ls,   sum_s x_ls <= 1   for every conv l,

where d is what the gradient's way to the earliest chosen conv costs. The number of biases changes every term,
so each admitted number is a problem of its own.

Source: Lin et al., arXiv 2206.15472, section 3.2 (contributions that add up, evolutionary search).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from neq.selection import StaticScheme

# How often a choice is corrected by what it really costs.
CORRECTIONS = 6
POPULATION, GENERATIONS, PARENTS, MUTATION = 64, 60, 16, 0.1


@dataclass(frozen=True)
class Option:
    """A share of a conv that may train.

    Args:
        conv: its index in module order.
        share: of its neurons, above 0.
        gain: in validation accuracy over the head alone, percentage points.
        cost: of these neurons and of opening the layer, in the budget's unit.
        depth: what it costs in the layers behind, of which only the largest of all chosen ones counts.
    """

    conv: int
    share: float
    gain: float
    cost: float
    depth: float


@dataclass(frozen=True)
class Problem:
    """The choice among options for one number of biases.

    Args:
        biases: how many of the last convs train their bias.
        gain: of these biases.
        base: cost of the head and these biases.
        options: of all convs.
    """

    biases: int
    gain: float
    base: float
    options: tuple[Option, ...]

    def cost(self, chosen: Sequence[Option]) -> float:
        """The predicted cost of a choice."""
        deepest = max((option.depth for option in chosen), default=0)
        return self.base + sum(option.cost for option in chosen) + deepest

    def value(self, chosen: Sequence[Option]) -> float:
        """The total contribution of a choice."""
        return self.gain + sum(option.gain for option in chosen)

    def scheme(self, chosen: Sequence[Option]) -> StaticScheme:
        """The lists of a choice; where no weight trains they name a conv and no neuron of it."""
        found = sorted((option.conv, option.share) for option in chosen) or [(0, 0.0)]
        convs, shares = zip(*found, strict=True)
        return StaticScheme(convs, shares, self.biases)


# Chooses options of a problem, which has some, at a predicted cost of at most an aim above its base.
Solve = Callable[[Problem, float], Sequence[Option]]


@dataclass(frozen=True)
class Choice:
    """A scheme within the budget.

    Args:
        scheme: its lists.
        predicted: its total contribution, percentage points.
        used: its exact cost, in the budget's unit.
    """

    scheme: StaticScheme
    predicted: float
    used: int


def best_choice(
    problems: Sequence[Problem], limit: int, used: Callable[[StaticScheme], int], solve: Solve
) -> Choice:
    """The scheme of the largest total contribution whose exact cost is within the limit.

    Args:
        problems: one for each admitted number of biases; the first trains the head alone and fits.
        limit: the budget.
        used: the exact cost of a scheme.
        solve: `by_milp` or `by_evolution`.
    """
    exact = cache(used)
    found = [choice for problem in problems for choice in _within(problem, limit, exact, solve)]
    return max(found, key=lambda choice: (choice.predicted, -choice.used))


def _within(
    problem: Problem, limit: int, used: Callable[[StaticScheme], int], solve: Solve
) -> Iterator[Choice]:
    """Choices of one problem within the limit: no weights at all, and what comes close from below.

    Where marginal costs predict c' and the step costs c, the next aim is limit - (c - c'), until one repeats.
    """
    useful = tuple(option for option in problem.options if option.gain > 0)
    problem, aim = replace(problem, options=useful), float(limit)
    aims: set[float] = set()
    while aim not in aims and len(aims) < CORRECTIONS:
        aims.add(aim)
        for chosen in ((), solve(problem, aim) if useful and aim > problem.base else ()):
            scheme = problem.scheme(chosen)
            cost = used(scheme)
            if cost <= limit:
                yield Choice(scheme, problem.value(chosen), cost)
        aim = limit - (cost - problem.cost(chosen))


def by_milp(problem: Problem, aim: float) -> list[Option]:
    """The best choice of a problem, proved by HiGHS."""
    options, room = problem.options, aim - problem.base
    count, convs = len(options), sorted({option.conv for option in options})
    of_conv = np.array([[option.conv == conv for option in options] for conv in convs], dtype=float)
    cost, depth = np.array([(option.cost, option.depth) for option in options]).T / room
    none = np.zeros((len(convs), 1))
    constraints = [
        LinearConstraint(np.append(cost, 1.0), ub=1.0),
        LinearConstraint(np.hstack([of_conv * depth, none - 1]), ub=0.0),
        LinearConstraint(np.hstack([of_conv, none]), ub=1.0),
    ]
    with _silence():
        found = milp(
            np.append([-option.gain for option in options], 0.0),
            integrality=np.append(np.ones(count), 0),
            bounds=Bounds(0, np.append(np.ones(count), np.inf)),
            constraints=constraints,
            options={"mip_rel_gap": 0.0},
        )
    assert found.x is not None, f"choosing nothing is feasible: {found.message}"
    chosen = [option for option, taken in zip(options, found.x[:count], strict=True) if taken > 0.5]
    # HiGHS lets a row exceed its bound by a millionth.
    return chosen if problem.cost(chosen) <= aim else by_milp(problem, aim - 2e-6 * room)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps off standard output what HiGHS prints whatever its options, where it repairs a solution."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def by_evolution(problem: Problem, aim: float, seed: int = 0) -> list[Option]:
    """The best choice of a problem that an evolutionary search finds.

    A genome holds for every conv the number of an option, 0 for none; one above the aim loses random options.
    """
    convs = sorted({option.conv for option in problem.options})
    genes = [[None, *(option for option in problem.options if option.conv == conv)] for conv in convs]
    sizes, places, stream = (
        np.array([len(each) for each in genes]),
        range(len(genes)),
        np.random.default_rng(seed),
    )
    table = [
        [[getattr(option, name, 0.0) for option in each] + [0.0] * (max(sizes) - len(each)) for each in genes]
        for name in ("gain", "cost", "depth")
    ]
    gain, cost, depth = np.array(table)  # [convs, options]

    def repaired(genomes: NDArray[np.int64]) -> NDArray[np.int64]:
        while True:
            costs = problem.base + cost[places, genomes].sum(1) + depth[places, genomes].max(1)
            if not (costs > aim).any():
                return genomes
            dropped = (stream.random(genomes.shape) * (genomes > 0)).argmax(1)
            genomes[costs > aim, dropped[costs > aim]] = 0

    population = repaired(stream.integers(sizes, size=(POPULATION, len(genes))))
    for _ in range(GENERATIONS):
        ranked = gain[places, population].sum(1).argsort(kind="stable")[::-1]
        parents = population[ranked[:PARENTS]]
        mothers, fathers = parents[stream.integers(PARENTS, size=(2, POPULATION - PARENTS))]
        children = np.where(stream.random(mothers.shape) < 0.5, mothers, fathers)
        drawn, mutated = stream.integers(sizes, size=children.shape), stream.random(children.shape) < MUTATION
        population = np.concatenate([parents, repaired(np.where(mutated, drawn, children))])
    best = population[gain[places, population].sum(1).argmax()]
    return [option for each, at in zip(genes, best, strict=True) if (option := each[at]) is not None]
