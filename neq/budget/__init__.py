"""What an epoch may cost, what a selection costs exactly, and filling the one with the other."""

from neq.budget.allocation import Allocation, BudgetAllocator
from neq.budget.budget import UNITS, Budget, amount_shown
from neq.budget.cost_model import CostModel, StepCost
from neq.budget.latency import Latency, calibrate
from neq.budget.latency_cache import kept_latency
from neq.budget.marginal_cost import marginal_costs
from neq.budget.step_spec import StepSpec

__all__ = [
    "UNITS",
    "Allocation",
    "Budget",
    "BudgetAllocator",
    "CostModel",
    "Latency",
    "StepCost",
    "StepSpec",
    "amount_shown",
    "calibrate",
    "kept_latency",
    "marginal_costs",
]
