"""Random: a new order of all neurons every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """Uniform random scores from the run's selection stream, float64 [N]."""
    return torch.rand(len(state.table), generator=state.generator, dtype=torch.float64)
