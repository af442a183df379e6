"""The selection folder of a run: which neurons every epoch updated, and their velocities."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neq.runs.layout import SELECTION
from neq.utils.atomic_files import atomic_file, write_text
from neq.utils.errors import UserError, first_line

if TYPE_CHECKING:
    from neq.networks.neurons import NeuronTable
    from neq.training import EpochReport

TABLE = "table.json"  # the layers


@dataclass(frozen=True)
class SelectionHistory:
    """The neurons that a run updated in its epochs: E epochs of N neurons in L layers.

    Args:
        layers: their names, in order.
        sizes: neurons of each.
        epochs: their numbers, from 0.
        chosen: bool [E, N].
        velocity: float32 [E, N], NaN where an epoch measured none; none where no epoch did.
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    epochs: tuple[int, ...]
    chosen: NDArray[np.bool_]
    velocity: NDArray[np.float32] | None

    def by_layer(self, values: NDArray[np.floating]) -> list[NDArray[np.floating]]:
        """[E, N] -> one array [E, neurons] a layer."""
        return np.split(values, np.cumsum(self.sizes)[:-1], axis=1)


def save_table(folder: Path, table: NeuronTable) -> None:
    """Writes table.json: the layers whose neurons the other files number, in order."""
    folder.mkdir(exist_ok=True)
    layers = [
        {"name": layer.name, "neurons": layer.neurons, "parameters": layer.parameters, "macs": layer.macs}
        for layer in table.layers
    ]
    write_text(folder / TABLE, json.dumps({"layers": layers, "head": table.head}, indent=1) + "\n")


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


def read_selection_history(folder: Path) -> SelectionHistory:
    """The selections of the epochs that a run has finished.

    Args:
        folder: of the run.

    Raises:
        UserError: no epoch is finished, or a file is damaged.
    """
    place = folder / SELECTION
    try:
        layers = json.loads((place / TABLE).read_text(encoding="utf-8"))["layers"]
        names = tuple(str(layer["name"]) for layer in layers)
        sizes = tuple(int(layer["neurons"]) for layer in layers)
        if min(sizes) < 1:
            raise ValueError(f"{TABLE} lists a layer without neurons")
        epochs = tuple(sorted(int(path.stem) for path in place.glob("[0-9]*.npz")))
        read = [read_selection(place, epoch) for epoch in epochs]
    except Exception as error:  # a damaged file fails in many ways, all of them the file's
        reason = (error.strerror if isinstance(error, OSError) else "") or first_line(error)
        raise UserError(f"{place} cannot be read ({reason}); train the run again with --overwrite") from error
    if not epochs:
        raise UserError(f"{place} holds no epoch yet; train the run first")
    if epochs != tuple(range(len(epochs))):
        raise UserError(f"{place} lacks an epoch; train the run again with --overwrite")
    arrays = [array for both in read for array in both if array is not None]
    if any(array.shape != (sum(sizes),) for array in arrays):
        raise UserError(f"{place} holds epochs of another network; train the run again with --overwrite")
    velocity = None
    if any(measured is not None for _, measured in read):
        unknown = np.full(sum(sizes), np.nan, dtype=np.float32)
        velocity = np.stack([unknown if measured is None else measured for _, measured in read])
    return SelectionHistory(names, sizes, epochs, np.stack([chosen for chosen, _ in read]), velocity)


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:05d}.npz"
