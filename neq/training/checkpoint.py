"""Checkpoints: all that a run needs to resume bit for bit, and its best network."""

from __future__ import annotations

import errno
import io
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from neq.networks.safetensors_file import checked_bytes
from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, first_line

FORMAT = 2
# Of format 1, whose checkpoints are still read: what the task counts had no name of its own.
_COUNTS_OF_FORMAT_1 = ("hits", "images")


class Checkpoints:
    """The checkpoint folder of a run: last.pt, previous.pt, best.pt and best.safetensors.

    The .pt files hold tensors and plain values only, so that torch.load(weights_only=True) reads them;
    best.safetensors is the plain network's state_dict alone, with a checksum. previous.pt is the former
    last.pt, in case a disk damages the newer one.

    Args:
        folder: created with the first checkpoint, in an existing folder.
        writes: whether anything is saved; of several processes the first saves.
        run: what names the run, in every checkpoint; None: they name none.
    """

    def __init__(self, folder: Path, writes: bool = True, run: str | None = None) -> None:
        self.folder, self._writes, self.run = folder, writes, run
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"
        self.best = folder / "best.pt"
        self.best_weights = folder / "best.safetensors"
        self._saved_at = time.monotonic()

    def save(
        self, state: dict[str, Any], is_best: bool, weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Saves the state after a step, atomically and verified; the best one also as best.*.

        Args:
            state: plain values and tensors; `network` is the plain network's state_dict.
            is_best: whether this is the best epoch so far.
            weights: the state_dict for best.safetensors; none: that of `state`.

        Raises:
            OSError: a file could not be written, or reads back differently. The former files are kept.
        """
        self._saved_at = time.monotonic()
        if not self._writes:
            return
        self.folder.mkdir(exist_ok=True)
        content = _content({"format": FORMAT, "run": self.run, **state})
        # The best one first: a run that is stopped in between trains its best epoch again.
        if is_best:
            weights = state["network"] if weights is None else weights
            tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            _write(self.best_weights, checked_bytes(tensors))
            _write(self.best, content)
        _write(self.last, content, self.previous)
        self._saved_at = time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Whether there is no checkpoint yet."""
        return not any(path.exists() for path in (self.last, self.previous, self.best))

    def is_due(self, minutes: float | None) -> bool:
        """Whether that many minutes have passed since the last checkpoint; never for 0 and none."""
        return minutes is not None and 0 < 60 * minutes <= time.monotonic() - self._saved_at

    def load_last(self, notes: Callable[[str], object] = lambda line: None) -> dict[str, Any] | None:
        """The newest state that is intact; none if there is no checkpoint yet.

        Args:
            notes: called with a line where an older file is used.

        Raises:
            UserError: every file is damaged, one cannot be read, or has an unknown format.
        """
        damaged: DamagedCheckpoint | None = None
        for path in (self.last, self.previous, self.best):
            if not path.exists():
                continue
            try:
                state = load_checkpoint(path)
            except DamagedCheckpoint as error:
                damaged = damaged or error
                continue
            if path != self.last:
                why = damaged or f"{self.last} is missing"
                notes(f"{why}; resuming from {path.name}, which is older: the result is the same")
            return state
        if damaged is not None:
            raise UserError(
                f"{damaged}; restore a copy, or start the run again with --overwrite"
            ) from damaged
        return None


class DamagedCheckpoint(UserError):
    """A checkpoint does not hold what was written."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint; nothing in the file is executed.

    Raises:
        DamagedCheckpoint: the file does not hold what was written.
        UserError: the file cannot be read, or has an unknown format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch ignores the checksums in it
            bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"the checksum of {bad} is wrong")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):  # whose text explains how to execute it
            reason = "it is damaged, or holds more than tensors and plain values"
        raise DamagedCheckpoint(f"{path} is not a readable checkpoint ({reason})") from error
    if isinstance(state, dict) and state.get("format") == 1:
        state = _upgraded(state)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint that this version reads (formats 1 and {FORMAT})")
    return state


def _upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 1 under the names of format 2."""
    state = {**state, "format": FORMAT}
    progress = state.get("progress")
    if isinstance(progress, dict) and "so_far" in progress:
        so_far = progress["so_far"]
        epoch_state = upgraded_epoch(so_far) if isinstance(so_far, dict) else so_far
        renamed = {name: value for name, value in progress.items() if name != "so_far"}
        state["progress"] = {**renamed, "epoch_state": epoch_state}
    if "own" in state:
        state["ranks"] = state.pop("own")
    return state


def upgraded_epoch(state: dict[str, Any]) -> dict[str, Any]:
    """The state of an unfinished epoch as format 2 has it: counts in one place."""
    if not set(_COUNTS_OF_FORMAT_1) <= state.keys():
        return state
    counts = {name: state[name] for name in _COUNTS_OF_FORMAT_1}
    return {name: value for name, value in state.items() if name not in counts} | {"counts": counts}


def _content(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _write(path: Path, content: bytes, former: Path | None = None) -> None:
    """Writes a file atomically, verified; the former file is kept under another name.

    Args:
        path: of the file.
        content: all of it.
        former: that other name; none: the former file is replaced.
    """
    with atomic_file(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        _check_written(file, content)
        if former is not None and path.exists():
            os.replace(path, former)


def _check_written(file: BinaryIO, content: bytes) -> None:
    if hasattr(os, "posix_fadvise"):  # else memory would be read back instead of the disk
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if Path(file.name).read_bytes() != content:
        raise OSError(errno.EIO, "reads back differently from what was written")
