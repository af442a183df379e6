"""Branched networks: names `branched:NAME`, `branched:FILE.json` and `branched:FOLDER`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from neq.config.catalog import register_family
from neq.config.schema import WEIGHTS_BY_NAME

# What a run records in place of a file's path, which its weights name.
RECORDED = "file"
ENDING = ".json"


def describe(name: str) -> Mapping[str, object]:
    """The catalog entry of `branched:NAME`, `branched:FILE.json` or `branched:FOLDER`.

    Raises:
        UserError: there is none, or a file that holds no model.
    """
    entry: Mapping[str, object] = {"builder": "neq.partition.named:build"}
    if name == RECORDED:
        return {**entry, "input_size": 224}
    return {**entry, **import_module("neq.partition.entries").describe(name)}


def starts_trained(name: str, weights: str) -> bool:
    """Whether a network starts from trained weights: a folder has them, a name and a model's file have none.

    Args:
        name: behind the prefix.
        weights: as the setting gives them.
    """
    if weights in WEIGHTS_BY_NAME:
        is_folder: bool = import_module("neq.partition.entries").is_folder(name)
        return is_folder and weights == "default"
    return not weights.endswith(ENDING)


register_family("branched", describe, starts_trained)
