"""The backward pass that costs what is selected."""

from neq.selective.optimizer_state import NamedState, carry_optimizer_state, optimizer_state
from neq.selective.plan import Plan
from neq.selective.trained import NORM_MODES, trained_parts, trained_values

__all__ = [
    "NORM_MODES",
    "NamedState",
    "Plan",
    "carry_optimizer_state",
    "optimizer_state",
    "trained_parts",
    "trained_values",
]
