"""Layers that are worth their memory, within which TraDy and MeDyate draw neurons.

With the importance I_i of neuron i and the bytes M_l that training all of layer l takes, layers are ranked by

    R_l = sqrt(sum_{i in l} I_i^2) / M_l

and the first ones are kept until they hold `layer_share` of the sum of all R.

Source: TraDy, arXiv 2510.19675 (I: gradient norms; layers ranked by gradient norm per memory).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.state import SelectionState


def preselected(state: SelectionState) -> Tensor:
    """The neurons of the preselected layers, bool [N].

    Raises:
        UserError: no importance has been measured.
    """
    found = state.measured_importance()
    places = [state.table.slice_of(layer.name) for layer in state.table.layers]
    norms = torch.stack([found.neurons[place].norm() for place in places])
    rank = norms / found.layer_bytes
    order = rank.argsort(descending=True, stable=True)
    before = rank[order].cumsum(0) - rank[order]
    kept = order[(before < state.layer_share * rank.sum()) & (rank[order] > 0)]
    chosen = torch.zeros(len(state.table), dtype=torch.bool)
    for layer in kept.tolist():
        chosen[places[layer]] = True
    return chosen
