"""A run as its folder holds it: the files of one run, read and checked without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neq.config import Config, read_yaml, resolve
from neq.runs.layout import BEST_WEIGHTS, CHECKPOINTS, CLASSES, CONFIG, IDENTITY, METRICS, SUMMARY
from neq.runs.record_header import RecordHeader, read_header
from neq.utils.errors import UserError, first_line, shown


@dataclass(frozen=True)
class StoredRun:
    """A run, finished or not, or a copy of its best network; made by `load_run`.

    Every file is read when it is first asked for, and raises UserError where it is missing or damaged.

    Args:
        folder: of the run.
        header: format of the record, environments, sweeps.
    """

    folder: Path
    header: RecordHeader

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The settings that can change the result, leaf -> JSON value; defaults are left out."""
        return read_object(self.folder / IDENTITY)

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        path = self.folder / CONFIG
        try:
            return resolve(read_yaml(path), {}).config
        except UserError as error:
            raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """A nested mapping for every finished epoch, as logged."""
        return read_metrics(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether it has a summary."""
        return (self.folder / SUMMARY).exists()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The result of a finished run and what it cost."""
        return read_summary(self.folder)

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of the network's outputs; none where none are recorded."""
        path = self.folder / CLASSES
        if not path.exists():
            return None
        names = read_json(path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path} does not hold the names of classes; put it back, or remove it")
        return tuple(names)

    @property
    def best_weights(self) -> Path:
        """The weights of the plain network after the best epoch, in safetensors."""
        for path in (self.folder / CHECKPOINTS / BEST_WEIGHTS, self.folder / BEST_WEIGHTS):
            if path.is_file():
                return path
        raise UserError(f"{self.folder} has no {CHECKPOINTS}/{BEST_WEIGHTS} yet; train the run first")


def load_run(folder: Path) -> StoredRun:
    """The run in a folder.

    Raises:
        UserError: the folder holds no run, or one in a format that is newer than this version reads.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no run; give the folder of one, with its {CONFIG}")
    return StoredRun(folder, read_header(folder))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run so far; a last line that a crash cut off is left out.

    Raises:
        UserError: a line is damaged.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]  # a whole line ends with a line end
        if not all(isinstance(row, dict) and isinstance(row.get("epochs"), int) for row in rows):
            raise ValueError("a line has no number of an epoch")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}); put it back, or train again with --overwrite"
        ) from error
    return rows


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run.

    Raises:
        UserError: summary.json is missing or damaged.
    """
    try:
        return read_object(folder / SUMMARY)
    except UserError as error:
        raise UserError(f"{error}; train again with --overwrite") from error


def read_object(path: Path, called: str = "") -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        called: its name in an error; empty: its path.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    value = read_json(path, called)
    if not isinstance(value, dict):
        raise UserError(f"{called or path} is damaged (it holds {shown(value)})")
    return value


def read_json(path: Path, called: str = "") -> Any:
    """The JSON value in a file; see `read_object`."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{called or path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{called or path} is damaged ({first_line(error)})") from None
