"""Taylor: the neurons whose weights matter most to the loss, to first order.

With gradients g of the loss of one batch, removing a weight w changes the loss by about w * g. A neuron i
with the weights W_i scores

    score_i = sum_{w in W_i} |w * g_w|

Source: Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019 (there squared).
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.state import SelectionState
from neq.utils.errors import UserError


def score(state: SelectionState) -> Tensor:
    """The sum of |weight * gradient| over each neuron's weights, float64 [N].

    Raises:
        UserError: no gradients have been measured.
    """
    if state.gradients is None:
        raise UserError("taylor has nothing to rank by before gradients are measured")
    scores = torch.zeros(len(state.table), dtype=torch.float64)
    for layer in state.table.layers:
        weight = layer.kind.weight(state.network.get_submodule(layer.name)).double()
        terms = (weight * state.gradients[f"{layer.name}.weight"].double()).abs()
        scores[state.table.slice_of(layer.name)] = terms.transpose(0, layer.axis).flatten(1).sum(1).cpu()
    return scores
