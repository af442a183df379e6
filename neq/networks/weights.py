"""Loads weights from a file into a network whose head may have another size."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from neq.config import WEIGHTS_BY_NAME
from neq.utils.errors import UserError, first_line, shown

SUFFIXES = (".safetensors", ".pth", ".pt")
# Keys under which checkpoints of torchvision's and timm's scripts, of others and of neq keep the state_dict.
_WRAPPERS = ("state_dict", "model", "network")
_LISTED = 5

log = logging.getLogger("neq")


def load_weights(network: nn.Module, head: str | None, file: str) -> None:
    """Loads a file's weights into a network, all of them or none.

    Where the file has a head of another size, or none, the network's own stays as it is, with a log line.

    Args:
        network: changed in place.
        head: the name of its head; None: the file must fit all of the network.
        file: as in `read_weights`.

    Raises:
        UserError: the file cannot be read, or is of another network.
    """
    weights = read_weights(file)
    own = network.state_dict()
    needed, dropped = set(own), None
    own_head = {name for name in own if head is not None and name.startswith(f"{head}.")}
    if head is not None and any(
        name not in weights or weights[name].shape != own[name].shape for name in own_head
    ):
        dropped = _dropped(weights, own, head)
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{head}.")}
        needed -= own_head
    # Files from before torch counted batches lack the counts, which nothing here reads.
    missing = [
        name
        for name in own
        if name in needed and name not in weights and not name.endswith(".num_batches_tracked")
    ]
    unexpected = [name for name in weights if name not in own]
    if missing or unexpected:
        raise UserError(
            f"weights {shown(file)} are of another network: {_listed(missing, 'missing')}, "
            f"{_listed(unexpected, 'unexpected')}; give a file of this network's layers, or another net_name"
        )
    misfits = [
        f"{name} has {_kind(tensor)} where {_kind(own[name])} is needed"
        for name, tensor in weights.items()
        if tensor.shape != own[name].shape or tensor.is_floating_point() != own[name].is_floating_point()
    ]
    if misfits:
        raise UserError(
            f"weights {shown(file)} do not fit, {_listed(misfits, 'wrong')}; "
            "give a file of this network's layers, or another net_name"
        )
    if dropped:
        log.warning("weights %s: %s", file, dropped)
    network.load_state_dict(weights, strict=False)


def read_weights(file: str) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU; nothing in the file is executed.

    Args:
        file: .safetensors, or .pth or .pt, where the state_dict may be wrapped in a checkpoint. A prefix
            `module.` of every name, as DataParallel leaves it, is removed.

    Raises:
        UserError: no such file, another kind of file, or a damaged one.
    """
    path = Path(file).expanduser()
    if path.suffix not in SUFFIXES or not path.is_file():
        reason = "is not a file" if path.suffix in SUFFIXES else "is not a file of weights"
        raise UserError(
            f"weights {shown(file)} {reason}; allowed: {', '.join(WEIGHTS_BY_NAME)}, "
            f"or the path of a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file"
        )
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # torch's own on sparse tensors, refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {shown(file)} are damaged, or hold more than tensors and plain values; "
            "save the network's state_dict alone (nothing in the file was executed)"
        ) from error
    except Exception as error:  # a damaged file fails in many ways, all of them the file's
        reason = first_line(error)
        raise UserError(f"weights {shown(file)} cannot be read ({reason}); replace the file") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"weights {shown(file)} hold no tensors by name; save the network's state_dict")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(
                f"weights {shown(file)} hold {shown(name)}, which is no tensor with a name; "
                f"save the network's state_dict, alone or under {shown(_WRAPPERS[0])}"
            )
        if tensor.is_meta:
            raise UserError(f"weights {shown(file)} hold no values for {shown(name)}; save it from a device")
        if tensor.layout != torch.strided:
            raise UserError(f"weights {shown(file)} hold {shown(name)} as a sparse tensor; save it dense")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def _dropped(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], head: str) -> str:
    """The log line for a head that is dropped."""
    there, here = weights.get(f"{head}.weight"), own[f"{head}.weight"]
    if there is None:
        return f"no head in it, {head} starts at random"
    return f"its head ({_kind(there)}) is dropped, {head} ({_kind(here)}) starts at random"


def _kind(tensor: Tensor) -> str:
    """A tensor's shape, and its type where that is not a float's."""
    shape = "x".join(map(str, tensor.shape)) or "one value"
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"


def _listed(names: Sequence[str], what: str) -> str:
    """`3 missing (a, b, ...)`."""
    if not names:
        return f"0 {what}"
    rest = ", ..." if len(names) > _LISTED else ""
    return f"{len(names)} {what} ({', '.join(names[:_LISTED])}{rest})"
