"""What an epoch may cost, what a selection costs exactly, and filling the one with the other."""

from neq.budget.allocation import Allocation, BudgetAllocator
from neq.budget.budget import UNITS, Budget, amount_shown
from neq.budget.cost_model import STATE_PER_VALUE, CostModel, StepCost
from neq.budget.filling import POLICIES, STATIC, choose, filler, lists_exceed, policy_limit
from neq.budget.marginal_cost import costs

__all__ = [
    "POLICIES",
    "STATE_PER_VALUE",
    "STATIC",
    "UNITS",
    "Allocation",
    "Budget",
    "BudgetAllocator",
    "CostModel",
    "StepCost",
    "amount_shown",
    "choose",
    "costs",
    "filler",
    "lists_exceed",
    "policy_limit",
]
