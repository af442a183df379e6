"""Choosing within a budget in any unit, held against the exact cost of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neq.budget.budget import Budget, amount_shown
from neq.budget.cost_model import CostModel
from neq.budget.filling import filler, lists_exceed, policy_limit
from neq.budget.knapsack import Costs
from neq.budget.marginal_cost import costs
from neq.selection import SelectionState
from neq.utils.errors import UserError

# How often a choice is corrected by what it really costs.
_CORRECTIONS = 6


@dataclass(frozen=True)
class Allocation:
    """What an epoch updates, and what of its budget that takes.

    Args:
        chosen: bool [N].
        used: cost of the choice, in the budget's unit; never above the limit.
        limit: the budget.
        unit: the budget's.
    """

    chosen: Tensor
    used: int
    limit: int
    unit: str


class BudgetAllocator:
    """A budget on the training step of one network.

    Args:
        model: of the step; its bias layers are those that train under the policy.
        budget: of an epoch.
    """

    def __init__(self, model: CostModel, budget: Budget) -> None:
        self.model = model
        self.unit = budget.unit
        self._budget = budget

    @cached_property
    def total(self) -> int:
        """What choosing everything costs."""
        return self.used(torch.ones(len(self.model.table), dtype=torch.bool))

    @cached_property
    def limit(self) -> int:
        """The budget as an amount.

        Raises:
            UserError: what trains whatever is chosen exceeds it.
        """
        limit = self._budget.limit(self.total)
        if self.costs.base > limit:
            images, _, *size = self.model.input_shape
            least, given = (amount_shown(amount, self.unit) for amount in (self.costs.base, limit))
            raise UserError(
                f"a budget of {given} is less than what always trains: head and norms need {least} "
                f"(norm_mode {self.model.norm_mode}, {images} images of {size[0]}x{size[1]} px); raise the "
                "budget, or take another norm_mode, fewer images in a batch or smaller ones"
            )
        return limit

    @cached_property
    def costs(self) -> Costs:
        """What each neuron and each layer adds."""
        return costs(self.model, self.unit)

    def used(self, chosen: Tensor) -> int:
        """The exact cost of a choice.

        Args:
            chosen: bool [N].
        """
        if self.unit == "bytes":
            return self.model.step(self.model.table.selection(chosen)).training_bytes
        return self.costs.total(chosen)

    def choose(self, policy: str, state: SelectionState, cost_aware: bool = False) -> Allocation:
        """The neurons that an epoch updates.

        Args:
            policy: "SU", "velocity", "random" or "full".
            state: what the policy looks at.
            cost_aware: take what brings the most for its cost, instead of going by the policy's rank.

        Raises:
            UserError: SU lists that do not fit the network or the budget, or a budget below what always
                trains.
        """
        take = filler(policy, state, cost_aware)
        if policy == "SU":
            return self.choice(policy, state, take(self.costs, self.limit))
        chosen, used = self._exactly(take, self.limit)
        return Allocation(chosen, used, self.limit, self.unit)

    def choice(self, policy: str, state: SelectionState, chosen: Tensor) -> Allocation:
        """Given neurons, held against the budget.

        Args:
            policy: that they were chosen by.
            state: what it looked at.
            chosen: bool [N].

        Raises:
            UserError: SU lists that do not fit the budget.
        """
        limit = self.limit
        if self.unit == "parameters":
            limit = policy_limit(policy, state.table, state.scheme, limit)
        used = self.used(chosen)
        if used > limit:
            raise lists_exceed(used, limit, self.unit)
        return Allocation(chosen, used, limit, self.unit)

    def _exactly(self, take: Callable[[Costs, int], Tensor], limit: int) -> tuple[Tensor, int]:
        """A choice and its exact cost, within the limit and close to it."""
        if limit >= self.total:
            return torch.ones(len(self.model.table), dtype=torch.bool), self.total
        best, most = torch.zeros(len(self.model.table), dtype=torch.bool), self.costs.base
        aims: set[int] = set()
        aim = limit
        while aim not in aims and len(aims) < _CORRECTIONS:
            aims.add(aim)
            chosen = take(self.costs, aim)
            used = self.used(chosen)
            if most <= used <= limit:
                best, most = chosen, used
            # By as much as these neurons cost more or less than the sum says.
            aim = limit - (used - self.costs.total(chosen))
        return best, most
