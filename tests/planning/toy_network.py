"""`toy:NAME`: a network of two convs that trains in no time, registered as a wing registers its own."""

from __future__ import annotations

from torch import nn

from neq.config.catalog import register_family
from neq.config.schema import WEIGHTS_BY_NAME
from neq.networks.weights import load_weights

CLASSES = 10


def build(net_name: str, weights: str, weights_key: str | None) -> nn.Module:
    """The network of a configuration; `toy:plain` has no batch norm."""
    norm = nn.Identity if net_name == "toy:plain" else nn.BatchNorm2d
    network = nn.Sequential()
    network.add_module("first", nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), norm(8), nn.ReLU()))
    network.add_module("second", nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), norm(16), nn.ReLU()))
    network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    network.add_module("head", nn.Linear(16, CLASSES))
    if weights not in WEIGHTS_BY_NAME:
        load_weights(network, "head", weights, weights_key)
    return network


def describe(name: str) -> dict[str, object]:
    return {"input_size": 8, "builder": "tests.planning.toy_network:build"}


register_family("toy", describe)
