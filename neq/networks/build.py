"""A network by name, its head replaced by one of the wanted size."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from neq.config import WEIGHTS_BY_NAME, network
from neq.errors import UserError
from neq.networks.mcunet import MCUNet
from neq.networks.weights import load_weights
from neq.seeds import seed_for


def build_network(net_name: str, num_classes: int, seed: int = 0, weights: str = "default") -> nn.Module:
    """A network by its name in configs/networks.yaml, with a new head.

    Body and head are drawn from random streams of their own, and the global random state is left as it
    was, so two networks of one name and seed are equal whatever ran before.

    Args:
        net_name: a name of the catalog (`mbv2`, `pre_trained_resnet18`, `mcunet-in1`, ...).
        num_classes: outputs of the head, 2 or more.
        seed: the run's seed.
        weights: "default" (what the name says), "none" (a random start), or a file of them.

    Raises:
        UserError: unknown name, or weights that cannot be had or do not fit.
    """
    entry = network(net_name)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would reseed the accelerators too.
        torch.default_generator.manual_seed(seed_for(seed, "network"))
        if entry.torchvision is None:
            assert entry.first is not None
            built: nn.Module = MCUNet(entry.first, entry.rows, num_classes)
        else:
            built = _from_torchvision(net_name, entry.torchvision, entry.pretrained and weights == "default")
        torch.default_generator.manual_seed(seed_for(seed, "head"))
        replace_head(built, num_classes)
    if weights not in WEIGHTS_BY_NAME:
        load_weights(built, head_name(built), weights)
    return built


def _from_torchvision(net_name: str, torchvision_name: str, pretrained: bool) -> nn.Module:
    if not pretrained:
        return torchvision.models.get_model(torchvision_name)
    weights = torchvision.models.get_model_weights(torchvision_name).DEFAULT
    try:
        return torchvision.models.get_model(torchvision_name, weights=weights)
    except Exception as error:  # a damaged file fails in many ways
        file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(weights.url).name
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        if file.exists() and not isinstance(error, URLError):
            raise UserError(
                f"net_name {net_name!r} needs torchvision's weights, but {file} cannot be read ({reason}); "
                "remove it, and it is downloaded again"
            ) from error
        raise UserError(
            f"net_name {net_name!r} needs torchvision's weights, which could not be loaded from "
            f"{weights.url} ({reason}); put that file at {file}, give weights FILE, or weights none for a "
            "random start"
        ) from error


def head_name(net: nn.Module) -> str:
    """The name of the classifier head: the last Linear in module order."""
    names = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    assert names, "a network without a Linear head"
    return names[-1]


def replace_head(net: nn.Module, num_classes: int) -> None:
    """Puts a new Linear with num_classes outputs in place of the head, drawn from torch's random state."""
    name = head_name(net)
    old = net.get_submodule(name)
    assert isinstance(old, nn.Linear)
    net.set_submodule(name, nn.Linear(old.in_features, num_classes, bias=old.bias is not None))
