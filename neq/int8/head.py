"""A classifier of codes: an int8 1x1 convolution in place of the linear one in floating point."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from neq.config import Config, section_of
from neq.experiment.network import register_network_rule
from neq.int8.conv import Int8Conv
from neq.int8.description import HIGHEST_BIAS, LARGEST_WEIGHT, LOWEST_BIAS, Conv, Quantization
from neq.int8.network import Int8Network
from neq.int8.rebuild import described_recipe
from neq.networks.recipe import Recipe, Transform, register_transform
from neq.wings.int8 import Int8Settings

# About as of the classifiers that tiny-training publishes: logits in steps of a sixth, and room for weights
# four times as large as the largest of a new classifier, 1 / sqrt(C).
_LOGITS = Quantization(1 / 6, 0)
_ROOM = 4.0


def network_rule(network: nn.Module, config: Config) -> nn.Module:
    """A network with a classifier of codes where the configuration asks for it."""
    if isinstance(network, Int8Network) and section_of(config, Int8Settings).head == "quantized":
        return quantize_head(network)
    return network


@register_transform("int8_head")
@torch.no_grad()
def quantize_head(network: nn.Module) -> nn.Module:
    """Replaces the classifier of an int8 network, in place, by a convolution of codes with its values.

    The scales depend on the number of features C alone: s_w = 4 / (127 sqrt(C)) for all classes.
    """
    assert isinstance(network, Int8Network)
    linear, (pooled, _) = network.get_submodule(network.head), network.steps[-1]
    assert isinstance(linear, nn.Linear)
    given = network.quantization(pooled)
    scale = _ROOM / LARGEST_WEIGHT / linear.in_features**0.5
    weight = (linear.weight / scale).round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT).to(torch.int8)
    bias = (linear.bias.double() / (scale * given.scale)).round().clamp(LOWEST_BIAS, HIGHEST_BIAS)
    scales = torch.full((linear.out_features,), scale)
    conv = Conv(network.head, (pooled,), _LOGITS, weight[..., None, None], bias.to(torch.int32), scales)
    network.set_submodule(network.head, Int8Conv(conv, given))
    network.neq_recipe = _recipe  # type: ignore[assignment]
    return network


def _recipe(network: Int8Network, classes: int) -> Recipe:
    recipe = described_recipe(network, classes)
    return replace(recipe, transforms=(*recipe.transforms, Transform("int8_head", {}, __name__)))


register_network_rule(network_rule)
