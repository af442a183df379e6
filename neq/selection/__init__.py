"""Policies that rank neurons."""

from neq.selection.similarity import PreviousValues, previous_values, similarity
from neq.selection.state import SelectionState, StaticScheme
from neq.selection.su import bias_layers, listed_parameters
from neq.selection.velocity import VelocityState

__all__ = [
    "PreviousValues",
    "SelectionState",
    "StaticScheme",
    "VelocityState",
    "bias_layers",
    "listed_parameters",
    "previous_values",
    "similarity",
]
