"""A bottleneck between the pooled features and the classifier head, by whose outputs domains are compared.

    f = ReLU(norm(W x)),    o = V f

It takes the place of the head and of what lies between it and the pooled features: mobilenet_v3_small's
features are its 576 pooled ones, not the 1024 by which ImageNet's classes were told apart. It is a layer of
the network: saved and counted with it, and its neurons are chosen as those of others.

Source: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018, section 4.1.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from neq.config import WEIGHTS_BY_NAME, Config, section_of
from neq.networks.heads import head_name
from neq.networks.recipe import Recipe, Transform, register_transform
from neq.networks.weights import load_weights, read_weights
from neq.utils.errors import UserError
from neq.utils.seeds import seed_for
from neq.wings.adaptation import AdaptationSettings

NAME = "bottleneck"
# What may lie between the pooled features and the head.
_BETWEEN = (nn.Linear, nn.Dropout, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Tanh, nn.Identity, nn.BatchNorm1d)


def start_weights(config: Config) -> str:
    """The weights that a run's network is built with before its bottleneck is added."""
    file, has_one = config.net_config.weights, section_of(config, AdaptationSettings).bottleneck is not None
    return "none" if has_one and _is_with_bottleneck(config) else file


def with_bottleneck(network: nn.Module, config: Config) -> nn.Module:
    """A network with a bottleneck where the configuration asks for one.

    Args:
        network: changed in place; built with `start_weights`.
        config: of the run.

    Raises:
        UserError: the head is not Linear, or a file's bottleneck is of another size.
    """
    size, net = section_of(config, AdaptationSettings).bottleneck, config.net_config
    if size is None:
        return network
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.manual_seed, NAME))
        add_bottleneck(network, size)
    network.neq_recipe = partial(_recipe, net.net_name, size)  # type: ignore[assignment]
    if _is_with_bottleneck(config):
        load_weights(network, head_name(network), net.weights, net.weights_key)
    return network


def _is_with_bottleneck(config: Config) -> bool:
    """Whether a run starts from a file whose network has a bottleneck."""
    net = config.net_config
    if net.weights in WEIGHTS_BY_NAME:
        return False
    return any(f".{NAME}." in f".{name}" for name in read_weights(net.weights, net.weights_key))


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
        raise UserError(
            f"a bottleneck needs a head that is Linear, here it is {type(head).__name__}; "
            "give --bottleneck null"
        )
    above, _, last = place.rpartition(".")
    parent = network.get_submodule(above)
    first = head
    if isinstance(parent, nn.Sequential):
        names = [name for name, _ in parent.named_children()]
        for name in reversed(names[: names.index(last)]):
            module = parent.get_submodule(name)
            if not isinstance(module, _BETWEEN):
                break
            first = module if isinstance(module, nn.Linear) else first
            parent.set_submodule(name, nn.Identity())
    made = nn.Sequential()
    made.add_module(NAME, nn.Linear(first.in_features, size))
    made.add_module("norm", nn.BatchNorm1d(size))
    made.add_module("relu", nn.ReLU())
    made.add_module("head", nn.Linear(size, head.out_features))
    network.set_submodule(place, made.to(head.weight.device, head.weight.dtype))
    return network


def _recipe(net_name: str, size: int, network: nn.Module, classes: int) -> Recipe:
    return Recipe(net_name, classes, head_name(network), (Transform(NAME, {"size": size}, __name__),))
