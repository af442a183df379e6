"""Last: whole layers from the last one on, in the order in which a forward pass calls them."""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """The position of each neuron's layer among all calls of a forward pass, float64 [N]."""
    layers = state.table.layers
    counts = torch.tensor([layer.neurons for layer in layers])
    return torch.tensor([layer.order for layer in layers], dtype=torch.float64).repeat_interleave(counts)
