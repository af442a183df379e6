"""SU: the fixed layers and shares of a scheme, in each layer the neurons with the largest weights.

Source: Lin et al., "On-device training under 256KB memory", NeurIPS 2022; per neuron as in
Quelennec et al., arXiv 2312.05282.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.networks.neurons import Layer, NeuronTable
from neq.selection.state import SelectionState, StaticScheme
from neq.utils.errors import UserError


def score(state: SelectionState) -> Tensor:
    """The L2 norm of each listed neuron's weights, -inf for all others, float64 [N].

    Raises:
        UserError: no scheme, or a scheme that does not fit the network.
    """
    if state.scheme is None:
        raise UserError("SU needs a scheme: which convs, and which share of each")
    scores = torch.full((len(state.table),), -torch.inf, dtype=torch.float64)
    for layer, count in _listed(state.table, state.scheme):
        module = state.network.get_submodule(layer.name)
        norms = (
            layer.kind.weight(module)
            .double()
            .transpose(0, layer.axis)
            .flatten(1)
            .norm(dim=1)
            .cpu()
            .nan_to_num(nan=0.0)
        )
        largest = norms.argsort(descending=True, stable=True)[:count]
        scores[state.table.slice_of(layer.name).start + largest] = norms[largest]
    return scores


def listed_parameters(table: NeuronTable, scheme: StaticScheme) -> int:
    """What the lists of a scheme add up to on a network, in parameters."""
    return sum(count * layer.parameters for layer, count in _listed(table, scheme))


def bias_layers(table: NeuronTable, scheme: StaticScheme) -> tuple[str, ...]:
    """The names of the last n_bias_update convs, whose biases train."""
    convs = _convs(table)
    return tuple(layer.name for layer in convs[max(0, len(convs) - scheme.n_bias_update) :])


def _convs(table: NeuronTable) -> list[Layer]:
    return [layer for layer in table.layers if layer.kind.is_conv]


def _listed(table: NeuronTable, scheme: StaticScheme) -> list[tuple[Layer, int]]:
    convs = _convs(table)
    if scheme.indices and max(scheme.indices) >= len(convs):
        raise UserError(
            f"manual_weight_idx names conv {max(scheme.indices)}, but the network has {len(convs)} convs, "
            f"0 .. {len(convs) - 1}"
        )
    return [
        (convs[index], round(ratio * convs[index].neurons))
        for index, ratio in zip(scheme.indices, scheme.ratios, strict=True)
    ]
