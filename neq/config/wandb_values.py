"""The values that a W&B agent gives a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from neq.config.keys import SECTIONS
from neq.config.reading import read_yaml
from neq.utils.errors import UserError, shown


def in_wandb_sweep() -> bool:
    """Whether `wandb agent` started this process as a cell of its sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def wandb_values() -> dict[str, object]:
    """The values of the cell, as in wandb.config; nothing outside a sweep.

    They are read from the file that the client itself reads them from, so that no server has to answer before
    a run starts.

    Raises:
        UserError: the file cannot be read.
    """
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not in_wandb_sweep() or not path:
        return {}
    items = {key: item for key, item in read_yaml(path).items() if key != "wandb_version"}
    for key, item in items.items():
        if not isinstance(item, dict) or "value" not in item:
            raise UserError(
                f"{key} {shown(item)} in {path} is not as W&B's agent writes it: a value is expected"
            )
    return {key: item["value"] for key, item in items.items() if isinstance(item, dict)}


def own_flags(arguments: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """The arguments without those that an agent's macros repeat in a form that is no flag of ours.

    `${args}` has nested parameters and null in Python's notation (`--run_config={'n_epochs': 5}`,
    `--budget=None`), `${args_no_hyphens}` n_epochs=5, `${args_json}` an object, `${args_json_file}` its file.

    Args:
        arguments: of the command line.
        values: of the cell, which these arguments repeat.
    """

    json_file = os.environ.get("WANDB_SWEEP_PARAM_PATH", "").removesuffix(".yaml") + ".json"

    def repeats(argument: str) -> bool:
        if not argument.startswith("--"):
            name = argument.lstrip("+").partition("=")[0]
            return name in values or argument == json_file or argument.startswith("{")
        name, _, text = argument.removeprefix("--").partition("=")
        value = values.get(name, ...)
        return (name in SECTIONS and isinstance(value, dict)) or (value is None and text == "None")

    return [argument for argument in arguments if not repeats(argument)]
