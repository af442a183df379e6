"""The backward pass that costs what is selected."""

from neq.selective.cost import STATE_PER_VALUE, StepCost, step_cost
from neq.selective.optimizer_state import NamedState, carry_optimizer_state, optimizer_state
from neq.selective.plan import Plan
from neq.selective.trained import NORM_MODES, trained_parts, trained_values

__all__ = [
    "NORM_MODES",
    "STATE_PER_VALUE",
    "NamedState",
    "Plan",
    "StepCost",
    "carry_optimizer_state",
    "optimizer_state",
    "step_cost",
    "trained_parts",
    "trained_values",
]
