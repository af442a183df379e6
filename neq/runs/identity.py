"""What makes two runs the same run: every setting that can change the result, and the folder it names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from neq.config.keys import KEYS, config_model
from neq.config.schema import WEIGHTS_BY_NAME, Config
from neq.config.writing import to_mapping
from neq.utils.atomic_files import file_sha256
from neq.utils.errors import UserError, shown

NOT_IDENTITY = frozenset(
    {
        *("project_name", "run_dir", "resume", "device", "memory", "root", "n_worker"),
        # What is left out under on_bad_image is part of the data's fingerprint.
        *("on_bad_image", "cache", "cache_gib"),
        *("test_per_epochs", "checkpoint_minutes"),
    }
)
FINGERPRINT = (
    "data_fingerprint"  # beside the settings, where the data set's name does not identify the images
)
PATH_KEYS = (
    *("dataset", "net_name", "initialization", "neuron_selection"),
    *("scheme", "ratio", "budget", "manual_seed"),
)


def identity(config: Config, data_fingerprint: str | None = None) -> dict[str, object]:
    """The settings of a resolved configuration that can change its result, leaf -> JSON value.

    Defaults are left out, so that a key added later does not rename old runs; PATH_KEYS always stay.
    A file of weights counts by its content, wherever it lies.

    Args:
        config: a resolved configuration.
        data_fingerprint: hash of the images, where the data set's name does not say which they are.

    Raises:
        UserError: the file of weights cannot be read.
    """
    values, defaults = _flat(config), _flat(config_model()())
    chosen = {
        name: value
        for name, value in values.items()
        if name not in NOT_IDENTITY and (name in PATH_KEYS or value != defaults[name])
    }
    weights = config.net_config.weights
    if weights not in WEIGHTS_BY_NAME:
        chosen["weights"] = f"sha256:{_hash(weights)}"
    if data_fingerprint is not None:
        chosen[FINGERPRINT] = data_fingerprint
    return chosen


def plain_identity(config: Config) -> dict[str, Any]:
    """The identity as JSON gives it back, without a fingerprint of the images."""
    named: dict[str, Any] = json.loads(json.dumps(identity(config)))
    return named


def run_folder(config: Config, data_fingerprint: str | None = None) -> PurePosixPath:
    """{dataset}/{net}/{initialization}/{neuron_selection}/{scheme}/{budget}/{seed}-{hash}.

    The budget is the absolute number, else the ratio, with its unit where that is not parameters. The hash is
    that of the identity without what the path already says, so that seeds of one setting share it.
    """
    settings = identity(config, data_fingerprint)
    said = {name: settings.pop(name) for name in PATH_KEYS}
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
    budget = repr(said["ratio"] if said["budget"] is None else said["budget"])
    if config.NEq_config.budget_unit != "parameters":
        budget += config.NEq_config.budget_unit
    names = [said[name] for name in ("dataset", "net_name", "initialization", "neuron_selection")]
    parts = [*names, said["scheme"] or "no_scheme", budget, f"{said['manual_seed']}-{digest}"]
    return PurePosixPath(*(re.sub(r"^\.+|[^A-Za-z0-9._+-]", "_", str(part)) for part in parts))


def _flat(config: Config) -> dict[str, object]:
    nested: dict[str, Any] = to_mapping(config)
    return {
        name: nested[key.section][key.name] if key.section else nested[key.name] for name, key in KEYS.items()
    }


def _hash(weights: str) -> str:
    try:
        return file_sha256(Path(weights).expanduser())
    except OSError as error:
        raise UserError(
            f"weights {shown(weights)} is not a file that can be read ({error.strerror}); "
            f"allowed: {', '.join(WEIGHTS_BY_NAME)}, or the path of a file"
        ) from error
