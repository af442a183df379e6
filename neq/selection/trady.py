"""TraDy: neurons drawn at random anew each epoch, inside layers that are ranked once beforehand.

Source: Quelennec et al., "Study of training dynamics for memory-constrained fine-tuning", ICLR 2026,
arXiv 2510.19675. There the layers of an architecture are ranked once for all tasks; here once for each run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.selection.preselected import preselected
from neq.selection.state import SelectionState


def score(state: SelectionState) -> Tensor:
    """A uniform draw for each neuron of the preselected layers, -inf for all others, float64 [N].

    Raises:
        UserError: no importance has been measured.
    """
    draws = torch.rand(len(state.table), generator=state.generator, dtype=torch.float64)
    return draws.where(preselected(state), -torch.inf)
