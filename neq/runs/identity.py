"""What makes two runs the same run: every setting that can change the result, and the folder it names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from neq.config.keys import KEYS, config_model
from neq.config.schema import WEIGHTS_BY_NAME, Config
from neq.config.writing import to_mapping
from neq.runs.layout import BEST_WEIGHTS, CHECKPOINTS
from neq.utils.atomic_files import file_sha256
from neq.utils.errors import UserError, shown

# Of the images, where the data set's name does not identify them.
FINGERPRINT = "data_fingerprint"
# Named by the folders above a run's own.
PATH_KEYS = (
    *("dataset", "net_name", "initialization", "neuron_selection"),
    *("scheme", "ratio", "budget", "manual_seed"),
)


def identity(config: Config, data_fingerprint: str | None = None) -> dict[str, object]:
    """The settings of a resolved configuration that can change its result, key -> JSON value.

    Whether a key is one of them stands at its field (`NOT_IDENTITY` in neq.config.schema). Defaults are left
    out, so that a key that is added later does not rename earlier runs; PATH_KEYS are always there. A file of
    weights is identified by its content, not by its path. What `on_bad_image` leaves out is part of the
    fingerprint.

    Args:
        config: a resolved configuration.
        data_fingerprint: hash of the images, where the data set's name does not identify them.

    Raises:
        UserError: the file of weights cannot be read.
    """
    values, defaults = _identity_settings(config), default_settings()
    chosen = {name: value for name, value in values.items() if name in PATH_KEYS or value != defaults[name]}
    weights = config.net_config.weights
    if weights not in WEIGHTS_BY_NAME:
        chosen["weights"] = f"sha256:{_hash(weights)}"
    for name in chosen:
        if KEYS[name].is_content:
            chosen[name] = _content(str(chosen[name]))
    if data_fingerprint is not None:
        chosen[FINGERPRINT] = data_fingerprint
    return chosen


def fingerprint(sets: Sequence[str | None]) -> str | None:
    """The fingerprint of all images of a run.

    Args:
        sets: that of each data set, None where its name identifies it; the run's own first.
    """
    own, *further = sets
    return own if not any(further) else hashlib.sha256(repr(sets).encode()).hexdigest()


def plain_identity(config: Config) -> dict[str, Any]:
    """The identity as JSON gives it back, without a fingerprint of the images."""
    named: dict[str, Any] = json.loads(json.dumps(identity(config)))
    return named


def run_folder(config: Config, data_fingerprint: str | None = None) -> PurePosixPath:
    """{dataset}/{net}/{initialization}/{neuron_selection}/{scheme}/{budget}/{seed}-{hash}.

    The budget is the amount, else the ratio, with its unit unless that is parameters. The hash covers the
    rest of the identity, so that the seeds of one setting share it. Runs are found by this name: a change
    of it orphans every run that exists.
    """
    settings = identity(config, data_fingerprint)
    named = {name: settings.pop(name) for name in PATH_KEYS}
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
    budget = repr(named["ratio"] if named["budget"] is None else named["budget"])
    if config.NEq_config.budget_unit != "parameters":
        budget += config.NEq_config.budget_unit
    names = [named[name] for name in ("dataset", "net_name", "initialization", "neuron_selection")]
    parts = [*names, named["scheme"] or "no_scheme", budget, f"{named['manual_seed']}-{digest}"]
    return PurePosixPath(*(re.sub(r"^\.+|[^A-Za-z0-9._+-]", "_", str(part)) for part in parts))


def default_settings() -> dict[str, object]:
    """The default of every setting that can change a result, key -> JSON value."""
    return _identity_settings(config_model()())


def _identity_settings(config: Config) -> dict[str, object]:
    nested: dict[str, Any] = to_mapping(config)
    return {
        name: nested[key.section][key.name] if key.section else nested[key.name]
        for name, key in KEYS.items()
        if key.is_identity
    }


def _content(named: str) -> str:
    """The hash of a file, or of the best network of a run's folder; else the name itself."""
    place = Path(named).expanduser()
    files = (place, place / CHECKPOINTS / BEST_WEIGHTS, place / BEST_WEIGHTS)
    found = next((file for file in files if file.is_file()), None)
    return named if found is None else f"sha256:{_hash(str(found))}"


def _hash(weights: str) -> str:
    try:
        return file_sha256(Path(weights).expanduser())
    except OSError as error:
        raise UserError(
            f"weights {shown(weights)} is not a file that can be read ({error.strerror}); "
            f"allowed: {', '.join(WEIGHTS_BY_NAME)}, or the path of a file"
        ) from error
