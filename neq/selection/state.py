"""What a policy sees when it scores neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neq.networks.neurons import NeuronTable
from neq.selection.importance import Importance
from neq.utils.errors import UserError

if TYPE_CHECKING:  # the core needs no configuration
    from neq.config import BackwardConfig


@dataclass(frozen=True)
class StaticScheme:
    """The lists of a static selection (SU).

    Args:
        indices: convs in module order, head excluded, ascending.
        ratios: share of each listed conv's neurons, 0 .. 1.
        n_bias_update: how many of the last convs train their bias.
    """

    indices: tuple[int, ...]
    ratios: tuple[float, ...]
    n_bias_update: int = 0

    @classmethod
    def of_config(cls, lists: BackwardConfig) -> StaticScheme | None:
        """The lists of a run's configuration, or None."""
        if not lists.manual_weight_idx:
            return None
        return cls(lists.manual_weight_idx, lists.weight_update_ratio, lists.n_bias_update)


@dataclass(frozen=True)
class SelectionState:
    """What a policy sees.

    Args:
        table: the network's neurons.
        network: the plain network, its weights as they are now.
        generator: the stream that random choices of this epoch are drawn from.
        scheme: the lists of SU, if the run has them.
        velocity: signed velocity of every neuron after the last epoch, float64 [N]; none before the first.
        gradients: of one batch's loss, as `batch_gradients` measures them; none where no policy needs them.
        importance: of every neuron; none where no policy needs it.
        layer_share: share of the layers' summed rank that preselected layers hold, above 0, at most 1.
    """

    table: NeuronTable
    network: nn.Module
    generator: torch.Generator
    scheme: StaticScheme | None = None
    velocity: Tensor | None = None
    gradients: Mapping[str, Tensor] | None = None
    importance: Importance | None = None
    layer_share: float = 1.0

    def measured_importance(self) -> Importance:
        """The importance of every neuron.

        Raises:
            UserError: none has been measured.
        """
        if self.importance is None:
            raise UserError("there is nothing to rank by before the importance of neurons is measured")
        return self.importance
