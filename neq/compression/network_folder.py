"""The folder of a compressed network, laid out as a copy of a run's network (`neq results best --copy`).

All that reads such a copy reads it: `neq export`, `neq compress` itself, and as `compressed:FOLDER` training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neq.compression.changed import Compressed
from neq.networks.recipe import Recipe, named_recipe, read_recipe, write_recipe
from neq.networks.safetensors_file import checked_bytes
from neq.results.best_network import BestNetwork
from neq.runs.layout import BEST_WEIGHTS, CLASSES, CONFIG
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import atomic_file, write_text
from neq.utils.errors import UserError

COMPRESSION, ONNX_FILE = "compression.json", "int8.onnx"
# Metadata of the weights: a run that starts from them is then identified by the recipe too.
RECIPE_KEY = "neq_recipe_sha256"


def read_start(best: BestNetwork) -> Compressed:
    """The network of a run, or of another compressed network, with its recipe.

    Raises:
        UserError: its recipe is damaged.
    """
    recipe = read_recipe(best.folder)
    if recipe is None:
        recipe = named_recipe(best.config.net_config.net_name, best.network, len(best.classes))
    return Compressed(best.network, recipe)


def recipe_digest(recipe: Recipe) -> str:
    """The hash of a recipe, the same when it is written and read again."""
    return hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode()).hexdigest()


def write_compressed(
    folder: Path,
    made: Compressed,
    of: BestNetwork,
    provenance: Mapping[str, Any],
    int8: bytes | None = None,
) -> None:
    """Writes a compressed network; how it was made comes last, so that a folder with its file is whole.

    Args:
        folder: made where it is not there; files of these names are replaced.
        made: the network.
        of: the network that it was made from.
        provenance: how it was made and what it measures, plain values of JSON.
        int8: content of its int8 ONNX file; none: it has none.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (COMPRESSION, ONNX_FILE):
            (folder / name).unlink(missing_ok=True)
        write_text(folder / CONFIG, (of.folder / CONFIG).read_text(encoding="utf-8"))
        write_text(folder / CLASSES, json.dumps(of.classes) + "\n")
        write_recipe(folder, made.recipe)
        weights = {name: tensor.contiguous() for name, tensor in made.network.state_dict().items()}
        with atomic_file(folder / BEST_WEIGHTS) as file:
            file.write(checked_bytes(weights, **{RECIPE_KEY: recipe_digest(made.recipe)}))
        if int8 is not None:
            with atomic_file(folder / ONNX_FILE) as file:
                file.write(int8)
        write_text(folder / COMPRESSION, json.dumps(provenance, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})") from error


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """How the network in a folder was made; none where there is no whole compressed network.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / BEST_WEIGHTS).is_file() or not (folder / COMPRESSION).is_file():
        return None
    return read_object(folder / COMPRESSION)
