"""The backward pass that costs what is selected."""

from neq.selective.optimizer_state import NamedState, carry_optimizer_state, optimizer_state
from neq.selective.plan import NORM_MODES, Plan

__all__ = ["NORM_MODES", "NamedState", "Plan", "carry_optimizer_state", "optimizer_state"]
