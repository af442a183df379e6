"""Full: every neuron, as far as the budget goes."""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """Equal scores, float64 [N]; under a budget below the total, position decides."""
    return torch.ones(len(state.table), dtype=torch.float64)
