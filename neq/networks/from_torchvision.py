"""Builds classification networks of torchvision."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torchvision
from torch import nn

from neq.networks.downloads import not_loaded, tensors_alone


def torchvision_network(net_name: str, model: str, input_size: int, pretrained: bool) -> nn.Module:
    """A network of torchvision, its head still of 1000 classes; auxiliary classifiers are left out.

    Args:
        net_name: its name as the user gave it.
        model: its name in torchvision.
        input_size: its native input size in pixels.
        pretrained: with torchvision's default weights; False: random weights.

    Raises:
        UserError: weights that are unavailable.
    """
    if not pretrained:
        return torchvision.models.get_model(model, **_options(model, input_size))
    weights = torchvision.models.get_model_weights(model).DEFAULT
    try:
        with tensors_alone():
            network = torchvision.models.get_model(model, weights=weights)
    except Exception as error:  # a damaged file fails in many ways
        file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(weights.url).name
        raise not_loaded(net_name, "torchvision", weights.url, file, error) from error
    if model == "inception_v3":  # whose weights restore the auxiliary classifier
        network.aux_logits, network.AuxLogits = False, None
    return network


def _options(model: str, input_size: int) -> dict[str, Any]:
    """Options of a network with random weights, which torchvision otherwise takes from its weights."""
    if model in ("googlenet", "inception_v3"):
        # Left out, torchvision warns that the default of init_weights will change.
        return {"aux_logits": False, "init_weights": True}
    return {"image_size": input_size} if model.startswith("vit_") else {}
