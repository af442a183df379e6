"""Checkpoints: what a run needs to go on as if it had never stopped, and its best network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from neq.errors import UserError
from neq.files import atomic_file

FORMAT = 1


class Checkpoints:
    """The checkpoint folder of a run: last.pt, best.pt and best.safetensors.

    The .pt files hold tensors and plain values only, so that torch.load(weights_only=True) reads them;
    best.safetensors is the plain network's state_dict alone.

    Args:
        folder: made when the first checkpoint is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.pt"
        self.best = folder / "best.pt"
        self.best_weights = folder / "best.safetensors"

    def save(self, state: dict[str, Any], is_best: bool) -> None:
        """Saves the state after an epoch, atomically and read back; the best one also as best.*.

        Args:
            state: plain values and tensors; `network` is the plain network's state_dict.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"format": FORMAT, **state}
        if is_best:
            self._write_weights(state["network"])
            self._write(self.best, state)
        self._write(self.last, state)

    def load_last(self) -> dict[str, Any] | None:
        """The state of the last whole epoch; none if there is no checkpoint yet.

        Raises:
            UserError: the file cannot be read, or is not a checkpoint of this version.
        """
        return load_checkpoint(self.last) if self.last.exists() else None

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        with atomic_file(path) as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch hides a full disk behind its own error
                raise OSError(f"{path} could not be written: is the disk full?") from error
            file.flush()
            load_checkpoint(Path(file.name))

    def _write_weights(self, weights: dict[str, Tensor]) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        with atomic_file(self.best_weights) as file:
            file.write(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint; nothing in the file is executed.

    Raises:
        UserError: the file cannot be read, or is not a checkpoint of this version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, all of them the file's
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # whose text tells how to execute it
            reason = "it is damaged, or holds more than tensors and plain values"
        raise UserError(f"{path} is not a readable checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint that this version reads (format {FORMAT})")
    return state
