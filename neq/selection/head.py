"""Head: no neuron at all, so that the classifier trains alone (and the norms of the norm mode)."""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """-inf for every neuron, float64 [N]."""
    return torch.full((len(state.table),), -torch.inf, dtype=torch.float64)
