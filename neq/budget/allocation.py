"""Choosing an epoch's neurons within a budget in any unit, by the exact cost of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neq.budget.budget import Budget, amount_shown
from neq.budget.cost_model import CostModel
from neq.budget.knapsack import MarginalCosts, fill_by_rank, fill_by_value, worth
from neq.budget.latency import Times
from neq.budget.marginal_cost import marginal_costs
from neq.selection import SelectionState
from neq.utils.errors import UserError

if TYPE_CHECKING:  # allocating needs no configuration
    from neq.config import Policy

# How often a choice is corrected by what it really costs.
_CORRECTIONS = 6
# Published budgets are rounded (192,311 for lists of 192,312; 675,540 for 675,840): one that is below the sum
# of its lists by no more than this share still admits them.
_SLACK_OF_LISTS = 0.001


@dataclass(frozen=True)
class Allocation:
    """What an epoch updates, and what of its budget that uses.

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
    """Allocates a budget on the training step of one network to the neurons that a policy ranks highest.

    Args:
        model: of the step; its bias layers are those that train under the policy.
        budget: of an epoch.
        times: returns the predicted times of a step; called where the budget is one in time.
    """

    def __init__(self, model: CostModel, budget: Budget, times: Callable[[], Times] | None = None) -> None:
        self.model = model
        self.unit = budget.unit
        self._budget = budget
        self._times = times

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
            spec = self.model.spec
            _, height, width = spec.image_shape
            always = "head and norms" if spec.train_head else "norms"
            always = f"runs: the forward pass, {always}" if self.unit == "time" else f"trains: {always}"
            least, given = (amount_shown(amount, self.unit) for amount in (self.costs.base, limit))
            raise UserError(
                f"a budget of {given} is less than what always {always} need {least} "
                f"(norm_mode {spec.norm_mode}, {spec.images} images of {height}x{width} px); raise the "
                "budget, or take another norm_mode, fewer images in a batch or smaller ones"
            )
        return limit

    @cached_property
    def costs(self) -> MarginalCosts:
        """What each neuron and each layer adds."""
        if self.unit == "time":
            return self._predicted.costs
        return marginal_costs(self.model, self.unit)

    def used(self, chosen: Tensor) -> int:
        """The exact cost of a choice; in time, the predicted one.

        Args:
            chosen: bool [N].
        """
        if self.unit == "bytes":
            return self.model.step(self.model.table.selection(chosen)).training_bytes
        return self._predicted.of(chosen) if self.unit == "time" else self.costs.total(chosen)

    @cached_property
    def _predicted(self) -> Times:
        assert self._times is not None, "a budget in time needs the times of the device"
        return self._times()

    def choose(self, policy: Policy, state: SelectionState, cost_aware: bool = False) -> Allocation:
        """The neurons that an epoch updates.

        Args:
            policy: that ranks them; one that needs lists takes what they name, neither more nor less.
            state: what the policy looks at.
            cost_aware: take the most value for its cost, or what the rank takes if that is worth more.

        Raises:
            UserError: lists that do not fit the network or the budget, or a budget below what always trains.
        """
        if policy.needs == "lists":
            return self.keep(policy, policy.score(state) != -torch.inf)
        limit, scores = self.limit, policy.score(state)
        if limit >= self.total:
            eligible = scores.cpu() != -torch.inf
            used = self.total if bool(eligible.all()) else self.used(eligible)
            return Allocation(eligible, used, limit, self.unit)
        found = list(self._within(limit, partial(fill_by_rank, scores)))
        if not cost_aware:
            chosen, used = max(reversed(found), key=lambda each: each[1])
            return Allocation(chosen, used, limit, self.unit)
        values = policy.value(state, scores)
        found += self._within(limit, partial(fill_by_value, values))
        chosen, used = max(found, key=lambda each: (worth(values, each[0]), each[1]))
        return Allocation(chosen, used, limit, self.unit)

    def keep(self, policy: Policy, chosen: Tensor) -> Allocation:
        """The allocation of given neurons: a static policy's first choice, or those that lists name.

        Args:
            policy: that chose them.
            chosen: bool [N].

        Raises:
            UserError: they cost more than the budget.
        """
        used, limit = self.used(chosen), self.limit
        rounded = policy.needs == "lists" and self.unit == "parameters"
        if used - limit > (used * _SLACK_OF_LISTS if rounded else 0):
            raise UserError(
                f"{policy.name} updates what its lists name, {amount_shown(used, self.unit)}, more than the "
                f"budget of {amount_shown(limit, self.unit)}; raise the budget or take another scheme"
            )
        return Allocation(chosen, used, used if rounded else limit, self.unit)

    def _within(
        self, limit: int, fill: Callable[[MarginalCosts, int], Tensor]
    ) -> Iterator[tuple[Tensor, int]]:
        """Choices, bool [N], and their exact costs: nothing, and what comes close to the limit from below.

        Marginal costs predict a cost c' where a step costs c. From aim a_0 = limit, each correction fills up
        to a_{k+1} = limit - (c_k - c'_k), until an aim repeats.
        """
        yield torch.zeros(len(self.model.table), dtype=torch.bool), self.costs.base
        aims: set[int] = set()
        tried: list[Tensor] = []
        aim = limit
        while aim not in aims and len(aims) < _CORRECTIONS:
            aims.add(aim)
            chosen = fill(self.costs, aim)
            if any(torch.equal(chosen, each) for each in tried):
                return  # it costs the same again, so the next aim repeats
            tried.append(chosen)
            used = self.used(chosen)
            if used <= limit:
                yield chosen, used
            aim = limit - (used - self.costs.total(chosen))
