"""MeDyate: neurons drawn anew each epoch in proportion to their importance, inside preselected layers.

Drawing without replacement with probabilities in proportion to I_i is taking the largest keys u_i^(1/I_i),
u_i uniform in (0, 1): the order of log(I_i) - log(-log u_i).

Source: Quelennec et al., "Memory constrained dynamic subnetwork update for transfer learning",
arXiv 2510.20979. Its own layer ranking (LaRa) is not used: layers are ranked as in `preselected`. The draw:
Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.preselected import preselected
from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """The key of each neuron's draw, -inf outside the preselected layers, float64 [N].

    Raises:
        UserError: no importance has been measured.
    """
    importance = state.measured_importance().neurons
    draws = torch.rand(len(importance), generator=state.generator, dtype=torch.float64)
    keys = importance.log() - (-draws.log()).log()
    return keys.where(preselected(state), -torch.inf)
