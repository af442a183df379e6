"""The folder of a configuration's run, and whether the run is done; found without torch or the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neq.config import Config, dataset
from neq.config.paths import data_folder
from neq.runs.identity import FINGERPRINT, plain_identity, run_folder
from neq.runs.layout import IDENTITY
from neq.runs.record_header import read_header
from neq.runs.stored_run import StoredRun, read_object
from neq.utils.errors import UserError


@dataclass(frozen=True)
class RunLocation:
    """The folder of a run below the folder of all runs, and how far the run is.

    A folder that ends in `-...` is not known before its images are read: their fingerprint is part of its
    name.
    """

    folder: Path
    state: Literal["done", "unfinished", "waiting"]


def find_run(config: Config, runs: Path) -> RunLocation:
    """The run of a resolved configuration, whichever copy of its images it was trained on.

    Args:
        config: of the run.
        runs: folder of all runs.

    Raises:
        UserError: the run starts from a file of weights that cannot be read, or was recorded in a format that
            is newer than this version reads.
    """
    wanted, folder = plain_identity(config), runs / run_folder(config)
    seed = folder.name.partition("-")[0]
    for found in sorted(folder.parent.glob(f"{seed}-*/{IDENTITY}")):
        if _without_images(found) == wanted:
            run = StoredRun(found.parent, read_header(found.parent))
            return RunLocation(run.folder, "done" if run.is_finished else "unfinished")
    if not _is_known_by_name(config):
        folder = folder.with_name(f"{seed}-...")
    return RunLocation(folder, "waiting")


def _without_images(path: Path) -> dict[str, object] | None:
    """The identity in a file without the fingerprint of the images; none where it cannot be read."""
    try:
        there = read_object(path)
    except UserError:
        return None
    there.pop(FINGERPRINT, None)
    return there


def _is_known_by_name(config: Config) -> bool:
    """Whether the name of the data set identifies its images, so that they have no fingerprint."""
    data = config.data_provider
    entry = dataset(data.dataset)
    if entry.kind == "builtin":
        return True
    as_folders = data_folder(data.root) / data.dataset / "train"
    return entry.kind == "download" and not as_folders.is_dir()
