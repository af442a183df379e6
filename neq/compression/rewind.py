"""Rewinding: the weights that are left return to their values at the start of the run.

What is found in training are the zeros alone: the network is trained again from where it started, without the
weights that were small in the end (a lottery ticket). A run keeps no early epoch, so it is the start itself;
with pre-trained weights that is a trained network with a new head.

Fine-tuning by the run's own schedule without rewinding, as `--rounds` does, is learning-rate rewinding.
Source: Frankle & Carbin, "The Lottery Ticket Hypothesis", ICLR 2019; Renda et al., "Comparing Rewinding and
Fine-tuning in Neural Network Pruning", ICLR 2020.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from neq.compression.changed import Compressed
from neq.compression.sparsity import sparse_layers


def rewind(made: Compressed, start: nn.Module) -> Compressed:
    """The network with the values of another one, where its sparse layers have zeros: those stay.

    Args:
        made: sparse; stays as it is.
        start: of the same tensors.
    """
    network = copy.deepcopy(made.network)
    network.load_state_dict(start.state_dict())
    with torch.no_grad():
        for name in sparse_layers(network):
            weight = f"{name}.weight"
            network.get_parameter(weight).mul_(made.network.get_parameter(weight) != 0)
    return Compressed(network, made.recipe)
