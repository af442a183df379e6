"""The selection folder of a run: which neurons every epoch updated, and their velocities."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neq.utils.atomic_files import atomic_file, write_text

if TYPE_CHECKING:
    from neq.networks.neurons import NeuronTable
    from neq.training import EpochReport


def save_table(folder: Path, table: NeuronTable) -> None:
    """Writes table.json: the layers whose neurons the other files number, in order."""
    folder.mkdir(exist_ok=True)
    layers = [
        {"name": layer.name, "neurons": layer.neurons, "parameters": layer.parameters, "macs": layer.macs}
        for layer in table.layers
    ]
    write_text(folder / "table.json", json.dumps({"layers": layers, "head": table.head}, indent=1) + "\n")


def save_selection(folder: Path, report: EpochReport) -> None:
    """Writes one epoch's file: the chosen neurons a bit each, velocities as float32."""
    arrays = {"chosen": np.packbits(report.chosen.numpy()), "neurons": np.array(len(report.chosen))}
    if report.velocity is not None:
        arrays["velocity"] = report.velocity.float().numpy()
    folder.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    with atomic_file(_path(folder, report.epoch)) as file:
        file.write(content.getbuffer())


def read_selection(folder: Path, epoch: int) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
    """One epoch's chosen neurons, bool [N], and the velocities measured after it, float32 [N] or none.

    Raises:
        Exception: nearly any, where the file is damaged.
    """
    with np.load(_path(folder, epoch), allow_pickle=False) as file:
        bits, count, velocity = file["chosen"], int(file["neurons"]), file.get("velocity")
        if not 0 <= count <= 8 * bits.size or (velocity is not None and velocity.dtype != np.float32):
            raise ValueError("it holds other arrays than a run writes")
        return np.unpackbits(bits, count=count).astype(bool), velocity


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:05d}.npz"
