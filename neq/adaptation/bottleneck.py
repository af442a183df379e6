"""A bottleneck before the classifier head: features of fewer dimensions, which the domains are compared by.

    f = ReLU(norm(W x)),    o = V f

It is a layer of the network: saved with it, counted with it, and its neurons are chosen as those of others.

Source: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018, section 4.1.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from neq.config import WEIGHTS_BY_NAME, Config, section_of
from neq.networks.heads import head_name
from neq.networks.recipe import Recipe, Transform, register_transform
from neq.networks.weights import read_weights
from neq.utils.errors import UserError
from neq.utils.seeds import seed_for
from neq.wings.adaptation import AdaptationSettings

NAME = "bottleneck"


def with_bottleneck(network: nn.Module, config: Config) -> nn.Module:
    """A network with a bottleneck where the configuration asks for one; a file with one has its weights.

    Args:
        network: changed in place.
        config: of the run.

    Raises:
        UserError: the head is not Linear.
    """
    size, net = section_of(config, AdaptationSettings).bottleneck, config.net_config
    if size is None:
        return network
    place = head_name(network)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.manual_seed, NAME))
        add_bottleneck(network, size)
    network.neq_recipe = partial(_recipe, net.net_name, size)  # type: ignore[assignment]
    if net.weights not in WEIGHTS_BY_NAME:
        _load(network.get_submodule(place), place, read_weights(net.weights, net.weights_key))
    return network


@register_transform(NAME)
def add_bottleneck(network: nn.Module, size: int) -> nn.Module:
    """Puts a bottleneck before the head, in place.

    Args:
        network: any, with a linear head.
        size: outputs of the bottleneck.

    Raises:
        UserError: the head is not Linear.
    """
    place = head_name(network)
    head = network.get_submodule(place)
    if not isinstance(head, nn.Linear):
        raise UserError(f"a bottleneck needs a head that is Linear, here it is {type(head).__name__}")
    made = nn.Sequential(
        nn.Linear(head.in_features, size),
        nn.BatchNorm1d(size),
        nn.ReLU(),
        nn.Linear(size, head.out_features),
    )
    network.set_submodule(place, made.to(head.weight.device, head.weight.dtype))
    return network


def _recipe(net_name: str, size: int, network: nn.Module, classes: int) -> Recipe:
    return Recipe(net_name, classes, head_name(network), (Transform(NAME, {"size": size}, __name__),))


def _load(made: nn.Module, place: str, weights: dict[str, Tensor]) -> None:
    """Loads the part of a file that is of this bottleneck and head; of another size, nothing."""
    inside = {name: value for name, value in weights.items() if name.startswith(f"{place}.")}
    found = {name.removeprefix(f"{place}."): value for name, value in inside.items()}
    own = made.state_dict()
    if found.keys() == own.keys() and all(found[name].shape == own[name].shape for name in own):
        made.load_state_dict(found)
