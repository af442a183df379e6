"""The backward pass that costs what is selected."""

from neq.backward.gradient_allreduce import average_gradients
from neq.backward.optimizer_state import NamedState, carry_optimizer_state, optimizer_state
from neq.backward.plan import Plan
from neq.backward.sync_batch_norm import SharedBatch
from neq.backward.trainable import NORM_MODES, trained_parts, trained_values

__all__ = [
    "NORM_MODES",
    "NamedState",
    "Plan",
    "SharedBatch",
    "average_gradients",
    "carry_optimizer_state",
    "optimizer_state",
    "trained_parts",
    "trained_values",
]
