"""Builds networks of timm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from torch import nn

from neq.networks.downloads import not_loaded, tensors_alone
from neq.utils.errors import UserError

SECONDS_TO_ANSWER = 10
FILE_NAMES = ["model.safetensors", "pytorch_model.bin"]


def timm_network(net_name: str, model: str, pretrained: bool) -> nn.Module:
    """A network of timm, its head still of the library's classes.

    Args:
        net_name: its name as the user gave it.
        model: its name in timm, with or without a tag (`resnet18`, `resnet18.a1_in1k`).
        pretrained: with timm's weights; False: random weights.

    Raises:
        UserError: weights that are unavailable, or a network without exactly one classifier head.
    """
    facts = timm.get_pretrained_cfg(model)
    assert facts is not None, "the catalog has the network"
    options: dict[str, Any] = {"num_classes": facts.num_classes or 1000}
    if pretrained:
        network = _with_weights(net_name, model, facts, options)
    else:
        network = timm.create_model(model, **options)
    heads = _heads(network, options["num_classes"])
    if heads != 1:
        raise UserError(f"net_name {net_name!r} has {heads} classifier heads; a network with one is needed")
    return network


def _heads(network: nn.Module, num_classes: int) -> int:
    """The number of layers of a network that return class scores."""
    get_classifier = getattr(network, "get_classifier", None)
    found = get_classifier() if get_classifier is not None else ()
    parts = [*found] if isinstance(found, tuple) else [found]
    if hasattr(network, "aux_head"):  # volo's second head
        parts.append(network.aux_head)
    layers = [
        module for part in parts for module in part.modules() if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    return sum(layer.weight.shape[0] == num_classes for layer in layers)


def _with_weights(net_name: str, model: str, facts: Any, options: dict[str, Any]) -> nn.Module:
    repository = facts.hf_hub_id
    names = [facts.hf_hub_filename] if facts.hf_hub_filename else FILE_NAMES
    if repository:
        url = huggingface_hub.hf_hub_url(repository, names[0])
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
        file = folder / "snapshots" / "main" / names[0]
    else:
        url = facts.url
        file = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(url).name
    try:
        if repository:
            file = Path(_from_hub(repository, names))
            options = {**options, "pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}
        with tensors_alone():
            return timm.create_model(model, pretrained=True, **options)
    except Exception as error:  # a damaged file fails in many ways
        raise not_loaded(net_name, "timm", url, file, error) from error


def _from_hub(repository: str, names: Sequence[str]) -> str:
    """The path of a repository's weights in the hub's cache, downloaded if they are missing.

    Args:
        names: of the file; the first that exists is used.

    Raises:
        OSError: none exists, or the network is unreachable.
    """
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return cached
    for name in names:
        # The hub's own client retries a failing request for most of a minute, so our own request comes first.
        request = Request(huggingface_hub.hf_hub_url(repository, name), method="HEAD")
        try:
            urlopen(request, timeout=SECONDS_TO_ANSWER).close()
        except HTTPError as error:
            if error.code == 404:
                continue
        return huggingface_hub.hf_hub_download(repository, name)
    raise OSError(f"{repository} has no {' or '.join(names)}")
