"""Policies that rank neurons, and the choice of an epoch's neurons under a budget."""

from neq.selection.choose import POLICIES, STATIC, choose, filler, lists_exceed, policy_limit
from neq.selection.similarity import PreviousValues, previous_values, similarity
from neq.selection.state import SelectionState, StaticScheme
from neq.selection.su import bias_layers, listed_parameters
from neq.selection.velocity import VelocityState

__all__ = [
    "POLICIES",
    "STATIC",
    "PreviousValues",
    "SelectionState",
    "StaticScheme",
    "VelocityState",
    "bias_layers",
    "choose",
    "filler",
    "listed_parameters",
    "lists_exceed",
    "policy_limit",
    "previous_values",
    "similarity",
]
