"""Choosing an epoch's neurons: a policy ranks, one function fills the budget."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from neq.budget import fill
from neq.errors import UserError
from neq.neurons import NeuronTable
from neq.selection import full, random, su, velocity
from neq.selection.state import SelectionState, StaticScheme

POLICIES: dict[str, Callable[[SelectionState], Tensor]] = {
    "SU": su.score,
    "velocity": velocity.score,
    "random": random.score,
    "full": full.score,
}

# Policies whose first choice stays for the whole run.
STATIC = ("SU", "full")


def policy_budget(policy: str, table: NeuronTable, scheme: StaticScheme | None, budget: int) -> int:
    """The budget of an epoch under a policy: SU always gets exactly what its lists add up to.

    Published budgets are rounded (192,311 for lists of 192,312; 675,540 for 675,840), so a budget up to
    0.1 % below the lists' sum still admits them.

    Args:
        budget: of the run, in parameters.

    Raises:
        UserError: the lists add up to clearly more than the budget.
    """
    if policy != "SU" or scheme is None:
        return budget
    listed = su.listed_parameters(table, scheme)
    if listed - budget > listed * 0.001:
        raise UserError(
            f"SU updates the {listed:,} parameters of its lists, more than the budget of {budget:,}; "
            "raise the budget or take another scheme"
        )
    return listed


def choose(policy: str, state: SelectionState, budget: int) -> Tensor:
    """The neurons that an epoch updates, bool [N].

    Args:
        policy: "SU", "velocity", "random" or "full".
        state: what the policy looks at.
        budget: the most parameters that may be updated.

    Raises:
        UserError: SU lists that do not fit the network or the budget.
    """
    limit = policy_budget(policy, state.table, state.scheme, budget)
    return fill(POLICIES[policy](state), state.table.parameters, limit)
