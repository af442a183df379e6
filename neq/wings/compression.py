"""Compressed networks: names `compressed:FOLDER`, and those of what a compression may be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neq.config.catalog import register_family, stored_input
from neq.utils.errors import UserError, shown

# What a run records in place of a folder's path, which its weights name.
RECORDED = "file"
_FILE = "best.safetensors"
# What pruning ranks neurons by, see `neq.compression.pruning`.
IMPORTANCES = ("magnitude", "taylor", "velocity", "velocity-least", "random")
# The int8 forms of what is deployed, see `neq.compression.deployment`.
FORMS = ("dynamic", "static", "mixed")
# Share of images on which a `mixed` network has to agree with the original, unless one is given.
AGREEMENT = 0.99
# How dense convs are factorized, and among which weights the smallest become zero.
DENSE, SCOPES = ("tucker2", "cp"), ("global", "layer")


def describe(name: str) -> Mapping[str, object]:
    """The catalog entry of `compressed:FOLDER`.

    Raises:
        UserError: there is no compressed network in the folder.
    """
    entry = {"pretrained": True, "builder": "neq.compression.named:build"}
    if name == RECORDED:
        return {**entry, "input_size": 224}
    folder = Path(name).expanduser()
    if not (folder / _FILE).is_file():
        raise UserError(f"net_name {shown(f'compressed:{name}')} is no compressed network; see neq compress")
    images = stored_input(folder / "config.yaml", "compress the network again")
    return {**entry, **images, "file": str(folder / _FILE)}


register_family("compressed", describe)
