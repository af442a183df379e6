"""What the catalog says of branched networks, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neq.config.catalog import stored_input
from neq.partition.costs import conv_weights
from neq.partition.model_file import read_model
from neq.partition.published import PUBLISHED, published
from neq.runs.layout import BEST_WEIGHTS, CHECKPOINTS, CONFIG
from neq.utils.errors import UserError, unknown_name
from neq.wings.partition import ENDING


def describe(name: str) -> Mapping[str, object]:
    """The fields of the catalog entry of a name, a model's file, or a folder with a trained network.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if is_folder(name):
        return _folder(Path(name).expanduser())
    if not name.endswith(ENDING) and name not in PUBLISHED:
        known = [f"branched:{each}" for each in PUBLISHED]
        raise unknown_name(
            "net_name", f"branched:{name}", known, f"Or branched:FILE{ENDING}, or a run's folder."
        )
    model = published(name) if name in PUBLISHED else read_model(name)
    convs, weights = conv_weights(model)
    file = {} if name in PUBLISHED else {"file": name}
    return {"input_size": model.image_size, "convs": convs, "conv_weights": weights, **file}


def is_folder(name: str) -> bool:
    """Whether a name is the path of a folder."""
    return name not in PUBLISHED and not name.endswith(ENDING) and Path(name).expanduser().is_dir()


def trained_file(folder: Path) -> Path:
    """The weights of the best epoch in the folder of a run, or of a copy of its network.

    Raises:
        UserError: there are none.
    """
    for file in (folder / CHECKPOINTS / BEST_WEIGHTS, folder / BEST_WEIGHTS):
        if file.is_file():
            return file
    raise UserError(f"{folder} holds no trained network; give the folder of a run, or branched:FILE{ENDING}")


def _folder(folder: Path) -> dict[str, Any]:
    file = trained_file(folder)
    images = stored_input(folder / CONFIG, "put it back")
    return {**images, "pretrained": True, "file": str(file)}
