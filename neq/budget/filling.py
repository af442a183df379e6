"""Choosing an epoch's neurons: a policy ranks, one function fills the budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from neq.budget.budget import amount_shown
from neq.budget.knapsack import Costs, fill, fill_by_value
from neq.networks.neurons import NeuronTable
from neq.selection import full, random, su, velocity
from neq.selection.state import SelectionState, StaticScheme
from neq.utils.errors import UserError

POLICIES: dict[str, Callable[[SelectionState], Tensor]] = {
    "SU": su.score,
    "velocity": velocity.score,
    "random": random.score,
    "full": full.score,
}
# What a choice is worth, where a policy's score is already one per cost.
VALUES: dict[str, Callable[[SelectionState], Tensor]] = POLICIES | {"velocity": velocity.value}

# Policies whose first choice stays for the whole run.
STATIC = ("SU", "full")


def policy_limit(policy: str, table: NeuronTable, scheme: StaticScheme | None, limit: int) -> int:
    """The budget of an epoch in parameters under a policy: SU always gets exactly what its lists add up to.

    Published budgets are rounded (192,311 for lists of 192,312; 675,540 for 675,840), so a budget up to
    0.1 % below the lists' sum still admits them.

    Args:
        limit: of the run, in parameters.

    Raises:
        UserError: the lists add up to clearly more than the budget.
    """
    if policy != "SU" or scheme is None:
        return limit
    listed = su.listed_parameters(table, scheme)
    if listed - limit > listed * 0.001:
        raise lists_exceed(listed, limit, "parameters")
    return listed


def lists_exceed(cost: int, limit: int, unit: str) -> UserError:
    """The error for SU lists that cost more than the budget."""
    return UserError(
        f"SU updates what its lists name, {amount_shown(cost, unit)}, more than the budget of "
        f"{amount_shown(limit, unit)}; raise the budget or take another scheme"
    )


def filler(policy: str, state: SelectionState, cost_aware: bool = False) -> Callable[[Costs, int], Tensor]:
    """A policy's rank, ready to fill budgets: costs and limit -> the taken neurons, bool [N].

    Args:
        policy: "SU", "velocity", "random" or "full".
        state: what the policy looks at.
        cost_aware: take what brings the most for its cost, instead of going by the policy's rank.

    Raises:
        UserError: SU lists that do not fit the network.
    """
    if policy == "SU":
        listed = su.score(state) > float("-inf")
        return lambda costs, limit: listed
    if cost_aware:
        return partial(fill_by_value, VALUES[policy](state))
    return partial(fill, POLICIES[policy](state))


def choose(policy: str, state: SelectionState, limit: int) -> Tensor:
    """The neurons that an epoch updates under a budget in parameters, bool [N].

    Args:
        policy: "SU", "velocity", "random" or "full".
        state: what the policy looks at.
        limit: the most parameters that may be updated.

    Raises:
        UserError: SU lists that do not fit the network or the budget.
    """
    policy_limit(policy, state.table, state.scheme, limit)
    return filler(policy, state)(Costs.per_neuron(state.table.parameters), limit)
