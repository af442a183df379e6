"""The record of a run: writes the files in its folder, which everything else is a view of."""

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

from neq.runs import layout
from neq.runs.layout import CONTENT, IDENTITY
from neq.runs.record_header import FRESH, RecordHeader, Stretch, SweepCell, read_header
from neq.runs.selection_file import save_selection, save_table
from neq.runs.stored_run import read_metrics, read_object
from neq.utils.atomic_files import named, write_text
from neq.utils.errors import UserError

if TYPE_CHECKING:  # reading a record does not wait for torch
    from neq.networks.neurons import NeuronTable
    from neq.training import EpochReport


class RunIsBusy(UserError):
    """Another process is training in the folder."""


class RunRecord:
    """The record of one run in one folder, see `neq.runs.layout`.

    The configuration, the class names, the header and the identity are written at the start, a line of
    metrics.jsonl and a file in selection/ after every epoch, summary.json at the end.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = folder / layout.METRICS
        self.summary = folder / layout.SUMMARY
        self.checkpoints = folder / layout.CHECKPOINTS

    def is_finished(self) -> bool:
        """Whether the folder holds a finished run."""
        return self.summary.exists() and (self.folder / IDENTITY).exists()

    def check(self, identity: dict[str, Any], resume: bool, overwrite: bool) -> None:
        """Checks that a run of this identity may use the folder; writes nothing.

        Raises:
            UserError: the folder holds something else, an unfinished run that is not to be resumed, or a run
                in a newer format.
        """
        try:
            if not self.folder.exists():
                return
            if not self.folder.is_dir():
                raise UserError(f"run_dir {self.folder} is a file; give a folder")
            names = {path.name for path in self.folder.iterdir()} - {layout.LOCK}
        except OSError as error:
            raise UserError(f"run_dir {self.folder} cannot be used ({error.strerror})") from error
        foreign = sorted(name for name in names - set(CONTENT) if not name.endswith(".tmp"))
        if IDENTITY not in names:
            if foreign:
                raise UserError(
                    f"run_dir {self.folder} holds {foreign[0]!r} and no run of neq; "
                    "give an empty or a new folder"
                )
            if not overwrite and names & layout.RESULTS:
                raise UserError(
                    f"run_dir {self.folder} holds a run whose {IDENTITY} is missing; put it back, "
                    "or --overwrite starts the run again"
                )
            return  # empty, or a start that was cut off before there was anything to keep
        if overwrite:
            return
        read_header(self.folder)
        there = self._identity()
        if there != identity:
            raise UserError(
                f"run_dir {self.folder} holds another run ({_difference(there, identity)}); "
                "give another --run-dir, or --overwrite to replace it"
            )
        if not self.is_finished() and not resume:
            if (self.folder / layout.LOCK).exists():
                with self.locked():  # rather than advice to a run that is under way
                    pass
            raise UserError(
                f"run_dir {self.folder} holds this run, unfinished; --resume continues it, "
                "--overwrite starts it again"
            )

    def _identity(self) -> dict[str, Any]:
        try:
            return read_object(self.folder / IDENTITY)
        except UserError as error:
            raise UserError(f"{error}; --overwrite starts the run again") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Creates the folder and keeps other processes out of it.

        Raises:
            RunIsBusy: another process is using it.
            UserError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / layout.LOCK)
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
        self,
        config_yaml: str,
        identity: dict[str, Any],
        table: NeuronTable,
        classes: Sequence[str],
        header: RecordHeader = FRESH,
    ) -> None:
        """Begins a fresh record, in place of whatever run the folder held."""
        for name in CONTENT:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        write_text(self.folder / layout.CONFIG, config_yaml)
        write_text(self.folder / layout.CLASSES, json.dumps(classes) + "\n")
        save_table(self.folder / layout.SELECTION, table)
        header.write(self.folder)
        # Last: a folder with an identity is a run that can be resumed.
        write_text(self.folder / IDENTITY, json.dumps(identity, indent=2) + "\n")

    def check_unstarted(self) -> None:
        """Checks that no epochs are lost by starting in the folder, where a checkpoint is missing.

        Raises:
            UserError: the folder holds epochs but not the checkpoint after them.
        """
        # One epoch may be recorded when its checkpoint is not saved yet.
        if len(read_metrics(self.folder)) > 1:
            raise UserError(
                f"run_dir {self.folder} holds epochs but no checkpoint to resume from; "
                "put it back, or --overwrite starts the run again"
            )

    def resume(self, stretch: Stretch, cell: SweepCell | None = None) -> str:
        """Resumes from a checkpoint: drops later metrics, records the environment and who asked for it.

        Args:
            stretch: that begins at the checkpoint.
            cell: of the sweep that resumes the run.

        Returns:
            In what the environment differs from that before the checkpoint, where that is known.

        Raises:
            UserError: metrics of an earlier epoch are missing, or record.json is damaged.
        """
        former = read_header(self.folder)
        self.rewind(stretch.epoch)
        header = former.resumed(stretch)
        if cell is not None:
            header = header.asked_by(cell)
        if header != former:
            header.write(self.folder)
        return header.change_at(stretch)

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

    def asked_by(self, cell: SweepCell) -> None:
        """Records that a cell of a sweep asked for the run, which is finished; not in a read-only folder.

        Raises:
            RunIsBusy: another process is using the folder.
            UserError: record.json is damaged, or its format is newer.
        """
        if cell in read_header(self.folder).sweeps or not os.access(self.folder, os.W_OK):
            return
        with self.locked():
            read_header(self.folder).asked_by(cell).write(self.folder)

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Steps leave no record."""

    def epoch(self, report: EpochReport) -> None:
        """Writes the epoch's metrics and selection to the disk."""
        save_selection(self.folder / layout.SELECTION, report)
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(report.metrics), allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise named(error, self.metrics) from error

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes summary.json, which marks the run as finished."""
        write_text(self.summary, json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    """The first setting that two identities differ in."""
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            return f"{key} is {there.get(key, 'its default')} there, {here.get(key, 'its default')} here"
    return "of another version"
