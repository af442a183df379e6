"""Unstructured pruning by magnitude: single weights become zero and stay zero.

A network is not faster by it, nor smaller in memory: only its file is, once it is packed (`packed_bytes`).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from neq.backward import Plan
from neq.compression.changed import Compressed
from neq.config import Config
from neq.networks.recipe import register_transform
from neq.training.optimizer import register_step_rule

_MARK = "neq_sparse"


@register_transform("sparse")
def sparse(network: nn.Module, layers: list[str]) -> nn.Module:
    """Marks layers of a network whose zero weights stay zero in training.

    Args:
        network: with these layers.
        layers: their names.
    """
    setattr(network, _MARK, frozenset((*getattr(network, _MARK, ()), *layers)))
    return network


def sparsify(start: Compressed, share: float, scope: str = "global") -> Compressed:
    """Sets the smallest weights of convs and Linears to zero, of all but the head.

    Args:
        start: stays as it is.
        share: of the weights that are not zero yet, above 0 and below 1: .5 twice leaves a quarter.
        scope: "global", the smallest of all layers, or "layer", the share of each.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.
    """
    network = copy.deepcopy(start.network)
    layers = {
        name: layer.weight.detach()
        for name, layer in network.named_modules()
        # What is all zero is a start value, as of a block of attention.
        if isinstance(layer, nn.Conv2d | nn.Linear) and name != start.recipe.head and bool(layer.weight.any())
    }
    weights = list(layers.values())
    groups = [weights] if scope == "global" else [[weight] for weight in weights]
    for group in groups:
        there = torch.cat([weight[weight != 0].abs() for weight in group])
        count = math.floor(share * len(there))
        if count:
            limit = there.kthvalue(count).values
            for weight in group:
                weight[weight.abs() <= limit] = 0
    return start.by("sparse", network.state_dict(), layers=list(layers))


def packed_bytes(network: nn.Module) -> int:
    """Bytes of a file of the network that stores a bit a weight and the values that are not zero.

    A tensor is stored so where that is less than all of its values.
    """
    return sum(_packed(tensor) for tensor in network.state_dict().values())


def _packed(tensor: Tensor) -> int:
    plain = tensor.numel() * tensor.element_size()
    return min(plain, math.ceil(tensor.numel() / 8) + int(tensor.count_nonzero()) * tensor.element_size())


def keep_zeros(optimizer: torch.optim.Optimizer, plan: Plan, config: Config) -> None:
    """Makes the zero weights of a sparse network zero again after each step of an optimizer.

    Args:
        optimizer: over the plan's parameters.
        plan: of any network.
        config: of the run.
    """
    layers: frozenset[str] = getattr(plan.network, _MARK, frozenset())
    there = [
        (leaf, leaf.detach() != 0)
        for name, leaf in plan.named_parameters()
        if name.endswith(".weight") and name.removesuffix(".weight") in layers
    ]

    @torch.no_grad()
    def zero(*_: object) -> None:
        for leaf, mask in there:
            leaf.mul_(mask)

    if there:
        optimizer.register_step_post_hook(zero)


register_step_rule(keep_zeros)
