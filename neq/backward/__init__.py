"""The backward pass that costs what is selected."""

from neq.backward.batch_norms import on_batch_statistics
from neq.backward.fixed_prefix import FixedPrefix, plain_prefix
from neq.backward.ghost_batch_norm import GhostBatches
from neq.backward.gradient_allreduce import average_gradients
from neq.backward.image_draws import ImageDraws, has_draws, stop_draws
from neq.backward.optimizer_state import NamedState, carry_optimizer_state, optimizer_state
from neq.backward.plan import Plan
from neq.backward.stand_ins import StandIn, register_stand_in
from neq.backward.sync_batch_norm import SyncBatchStats
from neq.backward.trainable import NORM_MODES, trainable_slices, trained_values
from neq.backward.trainable_layer import TrainableLayer

__all__ = [
    "NORM_MODES",
    "FixedPrefix",
    "GhostBatches",
    "ImageDraws",
    "NamedState",
    "Plan",
    "StandIn",
    "SyncBatchStats",
    "TrainableLayer",
    "average_gradients",
    "carry_optimizer_state",
    "has_draws",
    "on_batch_statistics",
    "optimizer_state",
    "plain_prefix",
    "register_stand_in",
    "stop_draws",
    "trainable_slices",
    "trained_values",
]
