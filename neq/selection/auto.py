"""Auto: the neurons that are worth most to the task at hand, by their measured importance.

The first epoch trains the head alone, since before it fits, gradients are those of a random head. Then every
neuron that the budget can afford is scored once (`importance`), and the knapsack of `cost_aware` buys the
most importance within the budget. See docs/automatic_selection.md.
"""

from __future__ import annotations

from torch import Tensor

from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """The measured importance of each neuron, float64 [N].

    Raises:
        UserError: no importance has been measured.
    """
    return state.measured_importance().neurons
