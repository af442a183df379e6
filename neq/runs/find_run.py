"""Where a cell's run lies, and whether it is done: read off the folders of the runs, with no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neq.config import Config, dataset
from neq.config.paths import data_folder
from neq.runs.identity import identity, run_folder


@dataclass(frozen=True)
class Place:
    """A run's folder below the runs, and what it holds.

    A folder that ends in `-...` is not known before its images are read: their fingerprint is part of it.
    """

    folder: Path
    state: Literal["done", "unfinished", "waiting"]


def find_run(config: Config, runs: Path) -> Place:
    """The run of a resolved configuration, whichever copy of its images it was trained on.

    Args:
        config: of the run.
        runs: folder of all runs.

    Raises:
        UserError: the run starts from a file of weights that cannot be read.
    """
    wanted, folder = json.loads(json.dumps(identity(config))), runs / run_folder(config)
    seed = folder.name.partition("-")[0]
    for found in sorted(folder.parent.glob(f"{seed}-*/identity.json")):
        if _without_images(found) == wanted:
            done = (found.parent / "summary.json").exists()
            return Place(found.parent, "done" if done else "unfinished")
    if not _named_alone(config):
        folder = folder.with_name(f"{seed}-...")
    return Place(folder, "waiting")


def _without_images(path: Path) -> object:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(there, dict):
        there.pop("data_fingerprint", None)
    return there


def _named_alone(config: Config) -> bool:
    """Whether the data set's name says which images they are, so that no fingerprint is taken."""
    data = config.data_provider
    entry = dataset(data.dataset)
    if entry.kind == "builtin":
        return True
    as_folders = data_folder(data.root) / data.dataset / "train"
    return entry.kind == "download" and not as_folders.is_dir()
