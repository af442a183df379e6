"""The run's own record: the files in its folder, which everything else is a view of."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from neq.runs.selection_file import save_selection, save_table
from neq.utils.atomic_files import named, write_text
from neq.utils.errors import UserError

if TYPE_CHECKING:  # reading a record does not wait for torch
    from neq.networks.neurons import NeuronTable
    from neq.training import EpochReport

# All that a run writes, the lock apart. What makes it a run comes first, and is removed first.
CONTENT = (
    "identity.json", "config.yaml", "classes.json", "metrics.jsonl", "summary.json", "checkpoint",
    "selection", "curves.png", "selection.png", "wandb.json",
)  # fmt: skip
# What would be lost with a run, of these.
_RESULTS = frozenset({"metrics.jsonl", "summary.json", "checkpoint"})


class RunIsBusy(UserError):
    """Another process is training in the folder."""


class RunRecord:
    """The record of one run in one folder.

    config.yaml, classes.json and identity.json are written at the start, a line of metrics.jsonl and a file
    in selection/ after every epoch, summary.json at the end: a folder with a summary.json holds a finished
    run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = folder / "metrics.jsonl"
        self.summary = folder / "summary.json"
        self.checkpoints = folder / "checkpoint"

    def is_finished(self) -> bool:
        """Whether the folder holds a finished run."""
        return self.summary.exists() and (self.folder / "identity.json").exists()

    def check(self, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
        """Makes sure that a run of this identity may use the folder; writes nothing.

        Raises:
            UserError: the folder holds something else, or an unfinished run that is not to be resumed.
        """
        try:
            if not self.folder.exists():
                return
            if not self.folder.is_dir():
                raise UserError(f"run_dir {self.folder} is a file; give a folder")
            names = {path.name for path in self.folder.iterdir()} - {".lock"}
        except OSError as error:
            raise UserError(f"run_dir {self.folder} cannot be used ({error.strerror})") from error
        foreign = sorted(name for name in names - set(CONTENT) if not name.endswith(".tmp"))
        if "identity.json" not in names:
            if foreign:
                raise UserError(
                    f"run_dir {self.folder} holds {foreign[0]!r} and no run of neq; "
                    "give an empty or a new folder"
                )
            if not overwrite and names & _RESULTS:
                raise UserError(
                    f"run_dir {self.folder} holds a run whose identity.json is missing; put it back, "
                    "or --overwrite starts the run again"
                )
            return  # empty, or a start that was cut off before there was anything to keep
        if overwrite:
            return
        there = self._identity()
        if there != identity:
            raise UserError(
                f"run_dir {self.folder} holds another run ({_difference(there, identity)}); "
                "give another --run-dir, or --overwrite to replace it"
            )
        if not self.is_finished() and not resume:
            if (self.folder / ".lock").exists():
                with self.locked():  # rather than advice to a run that is going on
                    pass
            raise UserError(
                f"run_dir {self.folder} holds this run, unfinished; --resume continues it, "
                "--overwrite starts it again"
            )

    def _identity(self) -> dict[str, Any]:
        path = self.folder / "identity.json"
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({error}); --overwrite starts the run again") from error
        if not isinstance(there, dict):
            raise UserError(f"{path} holds no identity; --overwrite starts the run again")
        return there

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it.

        Raises:
            RunIsBusy: another process is using it.
            UserError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            lock.acquire(timeout=0)
            for left in self.folder.rglob(".*.tmp"):  # of a process that was killed while writing
                left.unlink()
        except Timeout:
            raise RunIsBusy(f"another process is training in {self.folder}; wait for it to end") from None
        except OSError as error:
            raise UserError(f"run_dir {self.folder} cannot be written ({error.strerror})") from error
        try:
            yield
        finally:
            lock.release()

    def start(
        self, config_yaml: str, identity: dict[str, Any], table: NeuronTable, classes: Sequence[str]
    ) -> None:
        """Begins a fresh record, in place of whatever run the folder held."""
        for name in CONTENT:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        write_text(self.folder / "config.yaml", config_yaml)
        write_text(self.folder / "classes.json", json.dumps(classes) + "\n")
        save_table(self.folder / "selection", table)
        # Last: a folder with an identity is a run that can be resumed.
        write_text(self.folder / "identity.json", json.dumps(identity, indent=2) + "\n")

    def check_unstarted(self) -> None:
        """Makes sure that no epochs are lost by starting in the folder, where a checkpoint is missing.

        Raises:
            UserError: the folder holds epochs but not the checkpoint after them.
        """
        # One epoch may be recorded when its checkpoint is not saved yet.
        if len(read_metrics(self.folder)) > 1:
            raise UserError(
                f"run_dir {self.folder} holds epochs but no checkpoint to go on from; "
                "put it back, or --overwrite starts the run again"
            )

    def rewind(self, epoch: int) -> None:
        """Drops the metrics of an epoch and later ones: they come again from the checkpoint before it.

        Raises:
            UserError: metrics of an earlier epoch are missing.
        """
        rows = [row for row in read_metrics(self.folder) if row["epochs"] < epoch]
        if [row["epochs"] for row in rows] != list(range(epoch)):
            raise UserError(
                f"{self.metrics} lacks some of the {epoch} epochs before the checkpoint; "
                "put it back, or --overwrite starts the run again"
            )
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Steps leave no record."""

    def epoch(self, report: EpochReport) -> None:
        """Writes the epoch's metrics and selection to the disk."""
        save_selection(self.folder / "selection", report)
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_plain(report.metrics), allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise named(error, self.metrics) from error

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, which marks the run as finished."""
        write_text(self.summary, json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs of a run so far; a last line that a crash cut off is left out.

    Raises:
        UserError: a line is damaged.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]  # a whole line ends with a line end
        if not all(isinstance(row, dict) and isinstance(row.get("epochs"), int) for row in rows):
            raise ValueError("a line tells of no epoch")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({error}); put it back, or train again with --overwrite"
        ) from error
    return rows


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run.

    Raises:
        UserError: summary.json cannot be read.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(summary, dict):
            raise ValueError("it holds no summary")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); train again with --overwrite") from error
    return summary


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for both."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """The first setting that two identities differ in."""
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            return f"{key} is {there.get(key, 'its default')} there, {here.get(key, 'its default')} here"
    return "of another version"
