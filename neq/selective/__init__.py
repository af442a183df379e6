"""The backward pass that costs what is selected."""

from neq.selective.allowance import Allowance, Choice
from neq.selective.cost import STATE_PER_VALUE, CostModel, StepCost
from neq.selective.marginal import costs
from neq.selective.optimizer_state import NamedState, carry_optimizer_state, optimizer_state
from neq.selective.plan import Plan
from neq.selective.reduction import average_gradients
from neq.selective.shared_batch import SharedBatch
from neq.selective.trained import NORM_MODES, trained_parts, trained_values

__all__ = [
    "NORM_MODES",
    "STATE_PER_VALUE",
    "Allowance",
    "Choice",
    "CostModel",
    "NamedState",
    "Plan",
    "SharedBatch",
    "StepCost",
    "average_gradients",
    "carry_optimizer_state",
    "costs",
    "optimizer_state",
    "trained_parts",
    "trained_values",
]
