"""The values that a W&B agent gives a run."""

from __future__ import annotations

import os
from collections.abc import Mapping

from neq.config.leaves import SECTIONS
from neq.config.reading import read_yaml
from neq.errors import UserError, shown


def in_wandb_sweep(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `wandb agent` started this process as a cell of its sweep."""
    return bool(environment.get("WANDB_SWEEP_ID"))


def wandb_values(environment: Mapping[str, str] = os.environ) -> dict[str, object]:
    """The values of the cell, by leaf or path, as the agent left them for wandb.config; else nothing.

    They are read from the file that the client itself reads them from, so that no server has to answer before
    a run starts.

    Raises:
        UserError: the file cannot be read.
    """
    path = environment.get("WANDB_SWEEP_PARAM_PATH")
    if not in_wandb_sweep(environment) or not path:
        return {}
    values: dict[str, object] = {}
    for key, item in read_yaml(path).items():
        if key == "wandb_version":
            continue
        if not isinstance(item, dict) or "value" not in item:
            raise UserError(
                f"{key} {shown(item)} in {path} is not as an agent writes it: a value is expected"
            )
        value = item["value"]
        if key in SECTIONS and isinstance(value, dict):
            values |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            values[key] = value
    return values
