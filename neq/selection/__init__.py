"""Policies that rank neurons, and what they rank by."""

from neq.selection.gradients import batch_gradients
from neq.selection.importance import CRITERIA, Importance
from neq.selection.similarity import PreviousValues, previous_values, similarity
from neq.selection.state import SelectionState, StaticScheme
from neq.selection.su import bias_layers, listed_parameters
from neq.selection.velocity import VelocityState

__all__ = [
    "CRITERIA",
    "Importance",
    "PreviousValues",
    "SelectionState",
    "StaticScheme",
    "VelocityState",
    "batch_gradients",
    "bias_layers",
    "listed_parameters",
    "previous_values",
    "similarity",
]
