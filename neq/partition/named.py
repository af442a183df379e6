"""Builds `branched:NAME`, `branched:FILE.json` and `branched:FOLDER`, and builds them again by recipe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from neq.config import WEIGHTS_BY_NAME
from neq.networks.recipe import Recipe, Transform, read_recipe, register_transform
from neq.networks.weights import load_weights, read_weights
from neq.partition.entries import is_folder, trained_file
from neq.partition.model import Model
from neq.partition.model_file import mapping_of, model_of, read_model
from neq.partition.networks import BranchedNetwork
from neq.partition.published import PUBLISHED, published
from neq.runs.layout import CHECKPOINTS
from neq.utils.errors import UserError
from neq.wings.partition import ENDING, RECORDED

_TRANSFORM, _HEAD = "branched", "classifier"
# A recipe changes a network that has a name; this one is replaced.
_REPLACED = "mcunet-in0"


def build(net_name: str, weights: str, weights_key: str | None) -> nn.Module:
    """A network of a model.

    Args:
        net_name: `branched:` and a published name, a model's file, a run's folder, or "file", whose weights
            name the file, a model's or a run's.
        weights: "default" (a folder's own, else random), "none" (random), or a file.
        weights_key: of a checkpoint, as in `read_weights`.

    Raises:
        UserError: a file that is unavailable, damaged, or of another network.
    """
    name = net_name.partition(":")[2]
    if name in PUBLISHED:
        of_name = BranchedNetwork(published(name))
        return of_name if weights in WEIGHTS_BY_NAME else _loaded(of_name, weights, weights_key)
    if name == RECORDED:
        if weights in WEIGHTS_BY_NAME:
            raise UserError(f"net_name {net_name!r} needs its file; give net_name branched:FILE{ENDING}")
        name = weights
    elif is_folder(name):
        name = str(trained_file(Path(name).expanduser()))
    if name.endswith(ENDING):
        return _by_model(read_model(name))
    network = _by_model(_trained_model(Path(name).expanduser()))
    return network if weights == "none" else _loaded(network, name, weights_key)


def _loaded(network: BranchedNetwork, file: str, key: str | None) -> BranchedNetwork:
    """The network with the weights of a file, and with as many classes."""
    weight = read_weights(file, key).get(f"{_HEAD}.weight")
    if weight is not None and weight.dim() == 2 and len(weight) > 0:
        network.classifier = nn.Linear(network.classifier.in_features, len(weight))
    load_weights(network, _HEAD, file, key)
    return network


def _by_model(model: Model) -> BranchedNetwork:
    """A network that brings a recipe, which needs no file."""
    network = BranchedNetwork(model)
    transform = Transform(_TRANSFORM, {"model": mapping_of(model)}, __name__)
    network.neq_recipe = partial(_recipe, transform)  # type: ignore[assignment]
    return network


def _recipe(transform: Transform, network: nn.Module, classes: int) -> Recipe:
    return Recipe(_REPLACED, classes, _HEAD, (transform,))


def _trained_model(file: Path) -> Model:
    """The model of a run's network, by the recipe in the run's folder."""
    folder = file.parent.parent if file.parent.name == CHECKPOINTS else file.parent
    recipe = read_recipe(folder)
    match recipe:
        case Recipe(transforms=(Transform(name="branched", arguments={"model": content}),)):
            return model_of(content)
        case Recipe(net_name=net_name, transforms=()) if net_name.startswith("branched:"):
            return published(net_name.removeprefix("branched:"))
    raise UserError(f"{folder} holds no branched network, or one that was changed; give another folder")


@register_transform(_TRANSFORM)
def _rebuilt(network: nn.Module, model: Mapping[str, Any]) -> nn.Module:
    """The network of a model, in place of any, with as many classes."""
    made = BranchedNetwork(model_of(model), network.get_submodule("classifier").out_features)  # type: ignore[arg-type]
    return made
