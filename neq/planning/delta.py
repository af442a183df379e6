"""Delta checkpoints: what one task changed in a network, beside the last checkpoint that is whole.

A delta holds the new values of the share r of all changed values that changed most, by

    |new - old| / RMS(old values of its tensor)

(relative to each value, near-zero weights would come first), and all of the tensors that are kept whole: what
is no parameter, such as norm statistics, and the head. Old is what earlier files restore, so that losses do
not add up. At r = 1 the network is restored bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from neq.networks.heads import head_name
from neq.networks.safetensors_file import checked_bytes, load_checked
from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, first_line

MOST_DELTAS = 8
_INDEX, _VALUE = "#index", "#value"
State = Mapping[str, Tensor]


def kept_whole(network: nn.Module) -> set[str]:
    """The names of the tensors of which a delta keeps all values: the head, and what is no parameter."""
    head, parameters = head_name(network), {name for name, _ in network.named_parameters()}
    return {name for name in network.state_dict() if name not in parameters or name.startswith(f"{head}.")}


def delta(old: State, new: State, rate: float, whole: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of a delta: NAME#index int32 [n] and NAME#value [n], or NAME where all of it is smaller.

    Args:
        old, new: state_dicts of one network, on the CPU.
        rate: r, in (0, 1].
        whole: names of the tensors that are kept whole where they changed.
    """
    changed = {name: _changed(old[name], value) for name, value in new.items()}
    found = {name: new[name] for name, index in changed.items() if name in whole and len(index)}
    ranked = [name for name, index in changed.items() if name not in whole and len(index)]
    if not ranked:
        return found
    scores = torch.cat([_scores(old[name], new[name])[changed[name]] for name in ranked])
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[: math.ceil(rate * len(scores))]] = True
    for name, mask in zip(ranked, kept.split([len(changed[name]) for name in ranked]), strict=True):
        index = changed[name][mask]
        values = new[name].reshape(-1)[index]
        if len(index) * (4 + values.itemsize) >= old[name].numel() * values.itemsize:
            found[name] = old[name].reshape(-1).scatter(0, index, values).reshape(old[name].shape)
        elif len(index):
            found |= {name + _INDEX: index.int(), name + _VALUE: values}
    return found


def applied(old: State, changes: State) -> dict[str, Tensor]:
    """The state that a delta leads to.

    Args:
        old: the state before.
        changes: as `delta` returns them.
    """
    state = dict(old)
    for name, value in changes.items():
        tensor, _, part = name.partition("#")
        if part == "index":
            values = changes[tensor + _VALUE]
            state[tensor] = (
                old[tensor].reshape(-1).scatter(0, value.long(), values).reshape(old[tensor].shape)
            )
        elif not part:
            state[tensor] = value
    return state


class DeltaStore:
    """A folder with a whole checkpoint, NN.full.safetensors, and deltas after it, NN.delta.safetensors.

    Beyond MOST_DELTAS they are folded: the state before the new one becomes the whole checkpoint.

    Args:
        folder: created with the first file, in an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, number: int, state: State, rate: float, whole: Collection[str]) -> Path:
        """Stores a state after those of lower numbers: the first one whole, others as deltas.

        Args:
            number: from 0; files of this and of higher numbers are left over from a stop, and replaced.
            state: of the network.
            rate, whole: as of `delta`.

        Returns:
            The file.
        """
        self.folder.mkdir(exist_ok=True)
        for path in self._files():
            if _number(path) >= number:
                path.unlink()
        state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        files = self._chain()
        if not files:
            return self._write(number, "full", state)
        old = self.state()
        if len(files) > MOST_DELTAS:
            last = self._write(_number(files[-1]), "full", old)
            for path in self._files():
                if path != last:
                    path.unlink()
        return self._write(number, "delta", delta(old, state, rate, whole))

    def state(self) -> dict[str, Tensor]:
        """The newest state.

        Raises:
            UserError: a file is missing or damaged.
        """
        first, *deltas = self._chain()
        state = _load(first)
        for path in deltas:
            state = applied(state, _load(path))
        return state

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors"), key=_number)

    def _chain(self) -> list[Path]:
        """The last whole checkpoint and the deltas after it."""
        files = self._files()
        whole = [path for path in files if path.name.endswith(".full.safetensors")]
        if not whole:
            if files:
                raise UserError(f"{self.folder} holds deltas but no whole checkpoint; put it back")
            return []
        return [whole[-1], *(path for path in files if _number(path) > _number(whole[-1]))]

    def _write(self, number: int, kind: str, tensors: State) -> Path:
        path = self.folder / f"{number:02}.{kind}.safetensors"
        with atomic_file(path) as file:
            file.write(checked_bytes(tensors))
        return path


def _number(path: Path) -> int:
    return int(path.name.partition(".")[0])


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_checked(path)
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"{path} cannot be read ({first_line(error)}); put it back") from error


def _changed(old: Tensor, new: Tensor) -> Tensor:
    """The places of the values that differ in any bit, int64 [n]."""
    bits = [each.contiguous().reshape(-1).view(torch.uint8).reshape(-1, each.itemsize) for each in (old, new)]
    return (bits[0] != bits[1]).any(1).nonzero().reshape(-1)


def _scores(old: Tensor, new: Tensor) -> Tensor:
    """How much each value changed, float64 [n]."""
    before, after = old.reshape(-1).double(), new.reshape(-1).double()
    return (after - before).abs() / before.square().mean().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
