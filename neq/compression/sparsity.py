"""Unstructured pruning by magnitude: single weights become zero and stay zero.

A network is not faster by it, nor smaller in memory: only its file is, once it is packed
(`neq.compression.packing`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neq.backward import Plan
from neq.compression.attention import LAYER
from neq.compression.changed import Compressed
from neq.config import Config
from neq.networks.recipe import register_transform
from neq.training.optimizer import register_step_rule
from neq.utils.errors import UserError

# Attributes of a network: its sparse layers, and the weights of each that train, once it is trained.
_MARK, _MASKS = "neq_sparse", "neq_sparse_masks"


@register_transform("sparse")
def sparse(network: nn.Module, layers: list[str]) -> nn.Module:
    """Marks layers of a network whose zero weights stay zero in training.

    Args:
        network: with these layers.
        layers: their names.
    """
    setattr(network, _MARK, frozenset((*getattr(network, _MARK, ()), *layers)))
    setattr(network, _MASKS, None)
    return network


def sparse_layers(network: nn.Module) -> frozenset[str]:
    """The layers of a network whose zero weights stay zero, by the names that they have now.

    One that was factorized since is none any more; one that got a block of attention is inside of it.
    """
    there, found = dict(network.named_parameters()).keys(), set()
    for name in getattr(network, _MARK, ()):
        while f"{name}.weight" not in there and f"{name}.{LAYER}.weight" in there:
            name = f"{name}.{LAYER}"
        if f"{name}.weight" in there:
            found.add(name)
    return frozenset(found)


def trained_weights(network: nn.Module) -> Mapping[str, Tensor]:
    """Which weights of its sparse layers train: those that are not zero when this is first called.

    So a weight that is exactly zero in the middle of a run goes on training.

    Returns:
        Name of the weight -> bool, of its shape.
    """
    names = [f"{name}.weight" for name in sorted(sparse_layers(network))]
    shapes = {name: network.get_parameter(name).shape for name in names}
    masks: Mapping[str, Tensor] | None = getattr(network, _MASKS, None)
    # Of another structure, a network was compressed since.
    if masks is None or {name: mask.shape for name, mask in masks.items()} != shapes:
        masks = {name: network.get_parameter(name).detach() != 0 for name in names}
        setattr(network, _MASKS, masks)
    return masks


def sparsify(start: Compressed, share: float, scope: str = "global") -> Compressed:
    """Sets the smallest weights of convs and Linears to zero, of all but the head.

    Args:
        start: stays as it is.
        share: of the weights that are not zero yet, above 0 and below 1: .5 twice leaves a quarter.
        scope: "global", the smallest of all layers, or "layer", the share of each.

    Raises:
        UserError: a network with binary weights, which are never zero.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015.
    """
    from neq.compression.binary import BinaryConv2d  # which imports this module

    if any(isinstance(layer, BinaryConv2d) for layer in start.network.modules()):
        raise UserError(
            "binary weights are not zero, and this network has them; give --sparsify or --binarize"
        )
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


def keep_zeros(optimizer: torch.optim.Optimizer, plan: Plan, config: Config) -> None:
    """Makes the weights of a sparse network that do not train zero again after each step of an optimizer.

    Args:
        optimizer: over the plan's parameters.
        plan: of any network.
        config: of the run.
    """
    masks = trained_weights(plan.network)
    there = [
        (leaf, plan.parts[name].take(masks[name]).to(leaf.device))
        for name, leaf in plan.named_parameters()
        if name in masks
    ]

    @torch.no_grad()
    def zero(*_: object) -> None:
        for leaf, mask in there:
            leaf.mul_(mask)

    if there:
        optimizer.register_step_post_hook(zero)


register_step_rule(keep_zeros)
