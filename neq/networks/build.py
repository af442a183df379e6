"""Builds a network by name, with a new classifier head."""

from __future__ import annotations

import logging
from importlib import import_module

import torch
from torch import nn

from neq.config import PRE_TRAINED, WEIGHTS_BY_NAME, NetworkEntry, network
from neq.networks.cifar_resnet import CifarResNet
from neq.networks.from_torchvision import torchvision_network
from neq.networks.heads import head_name, replace_head
from neq.networks.mcunet import EPS, MCUNet, is_of_zoo
from neq.networks.mcunet_zoo import CLASSES, load_zoo_weights
from neq.networks.weights import load_weights
from neq.utils.seeds import seed_for

log = logging.getLogger("neq")


def build_network(
    net_name: str, num_classes: int, seed: int = 0, weights: str = "default", weights_key: str | None = None
) -> nn.Module:
    """A network by its name, with a new head.

    Body and head are drawn from random streams of their own, and the global random state is left unchanged,
    so two networks of one name and seed are equal whatever ran before.

    Args:
        net_name: a name of the catalog (`mbv2`, `pre_trained_resnet18`, `mcunet-in1`, ...), or
            `torchvision:NAME` or `timm:NAME`, or `PREFIX:NAME` of a wing.
        num_classes: outputs of the head, 2 or more.
        seed: the run's seed.
        weights: "default" (as the name says), "none" (random), or the path of a weights file.
        weights_key: of a checkpoint, under which the state_dict stands; None: one of the usual ones.

    Raises:
        UserError: unknown name, no single head, or weights that are unavailable or do not fit.
    """
    entry = network(net_name)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed the accelerators too.
        torch.default_generator.manual_seed(seed_for(seed, "network"))
        if entry.builder is None:
            built = _body(net_name, entry, entry.pretrained and weights == "default", num_classes)
        else:
            module, _, function = entry.builder.partition(":")
            built = getattr(import_module(module), function)(net_name, weights, weights_key)
        if entry.builder is None or weights in WEIGHTS_BY_NAME or not _has_outputs(built, num_classes):
            torch.default_generator.manual_seed(seed_for(seed, "head"))
            replace_head(built, num_classes)
    if entry.builder is None and weights not in WEIGHTS_BY_NAME:
        names = load_weights(built, head_name(built), weights, weights_key)
        if entry.zoo and not entry.pretrained and is_of_zoo(names):
            log.warning(
                "weights %s are of the MCUNet model zoo: net_name %s has their input range and norms too",
                weights,
                PRE_TRAINED + net_name,
            )
    return built


def _has_outputs(network: nn.Module, count: int) -> bool:
    weight = network.get_submodule(head_name(network)).weight
    return isinstance(weight, torch.Tensor) and len(weight) == count


def _body(net_name: str, entry: NetworkEntry, pretrained: bool, num_classes: int) -> nn.Module:
    if entry.torchvision is not None:
        return torchvision_network(net_name, entry.torchvision, entry.input_size, pretrained)
    if entry.timm is not None:
        # Only here: timm takes a second to import.
        from neq.networks.from_timm import timm_network

        return timm_network(net_name, entry.timm, pretrained)
    if entry.cifar_blocks is not None:
        return CifarResNet(entry.cifar_blocks, num_classes)
    assert entry.first is not None, "the catalog checks that a network is built in one way"
    classes = CLASSES if pretrained else num_classes
    eps = entry.zoo_eps if entry.pretrained else EPS
    built = MCUNet(entry.first, entry.rows, classes, entry.feature_mix, entry.folded, eps)
    if pretrained:
        assert entry.zoo is not None, "the catalog checks that there are weights"
        load_zoo_weights(built, net_name, entry.zoo)
    return built
