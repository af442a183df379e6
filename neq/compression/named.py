"""Builds `compressed:FOLDER`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from neq.compression.network_folder import RECIPE_KEY, recipe_digest
from neq.compression.sparsity import trained_weights
from neq.config import WEIGHTS_BY_NAME
from neq.networks.recipe import RECIPE, Recipe, read_recipe
from neq.networks.safetensors_file import read_metadata
from neq.networks.weights import load_weights
from neq.runs.layout import BEST_WEIGHTS
from neq.utils.errors import UserError
from neq.wings.compression import RECORDED


def build(net_name: str, weights: str, weights_key: str | None) -> nn.Module:
    """A compressed network, which brings its recipe.

    Args:
        net_name: `compressed:FOLDER`, or `compressed:file` with the folder's file as weights.
        weights: "default" (the folder's), "none" (random), or the folder's file.
        weights_key: of a checkpoint, as in `read_weights`.

    Raises:
        UserError: no compressed network there, or a damaged one.
    """
    name = net_name.partition(":")[2]
    if name == RECORDED and weights in WEIGHTS_BY_NAME:
        raise UserError(f"net_name {net_name!r} needs its folder; give net_name compressed:FOLDER")
    folder = Path(weights).expanduser().parent if name == RECORDED else Path(name).expanduser()
    recipe = read_recipe(folder)
    if recipe is None:
        raise UserError(f"{folder} has no {RECIPE}; give the folder of a compressed network")
    if recipe.net_name.startswith("compressed:"):
        raise UserError(f"{folder / RECIPE} is damaged (it builds on {recipe.net_name}); compress it again")
    network = recipe.build()
    if weights != "none":
        file = folder / BEST_WEIGHTS
        load_weights(network, None, str(file), weights_key)
        if read_metadata(file).get(RECIPE_KEY, recipe_digest(recipe)) != recipe_digest(recipe):
            raise UserError(f"{file} is not of the {RECIPE} beside it; put the right one back")
        trained_weights(network)  # of the file, also where a run is resumed

    def own(network: nn.Module, classes: int) -> Recipe:
        return replace(recipe, classes=classes)

    network.neq_recipe = own  # type: ignore[assignment]
    return network
