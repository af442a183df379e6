"""Loads weights from a file into a network whose head may have another size."""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from neq.config import WEIGHTS_BY_NAME
from neq.networks.mcunet import MCUNet, own_names
from neq.networks.safetensors_file import load_checked
from neq.utils.errors import UserError, first_line, shown

SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin", ".ckpt")
# Keys under which checkpoints of timm's, Lightning's and torchvision's scripts, of others and of neq keep the
# state_dict; the averaged one is read where there is no other.
_WRAPPERS = ("state_dict", "model", "network", "state_dict_ema", "model_ema")
# What torch.compile, DataParallel and AveragedModel, and modules of Lightning put before every name.
_PREFIXES = ("_orig_mod.", "module.", "model.")
_AVERAGED = "n_averaged"  # AveragedModel's counter
_LISTED = 5

log = logging.getLogger("neq")


def load_weights(network: nn.Module, head: str | None, file: str, key: str | None = None) -> tuple[str, ...]:
    """Loads a file's weights into a network, all of them or none.

    Prefixes that wrappers put before every name are removed. Where the file has a head of another size, or
    none, the network's own stays as it is, with a log line.

    Args:
        network: changed in place.
        head: the name of its head; None: the file must fit all of the network.
        file: as in `read_weights`.
        key: as in `read_weights`.

    Returns:
        The names of the file's tensors, without prefixes.

    Raises:
        UserError: the file cannot be read, or is of another network.
    """
    own = network.state_dict()
    weights = _without_prefixes(read_weights(file, key), own)
    names, needed, dropped = tuple(weights), set(own), []
    if isinstance(network, MCUNet):
        weights = own_names(weights)
        mix = [name for name in weights if name.startswith("feature_mix.")]
        if network.feature_mix is None and mix:
            weights = {name: tensor for name, tensor in weights.items() if name not in mix}
            dropped.append("its feature mix is left out, this network has none")
    own_head = {name for name in own if head is not None and name.startswith(f"{head}.")}
    if head is not None and any(
        name not in weights or weights[name].shape != own[name].shape for name in own_head
    ):
        dropped.append(_dropped(weights, own, head))
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
        log.warning("weights %s: %s", file, "; ".join(dropped))
    network.load_state_dict(weights, strict=False)
    return names


def read_weights(file: str, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU; nothing in the file is executed.

    Args:
        file: .safetensors, or what torch.save wrote, where the state_dict may be wrapped in a checkpoint.
        key: of the checkpoint, under which the state_dict stands; None: one of the usual ones.

    Raises:
        UserError: no such file or key, another kind of file, or a damaged one.
    """
    path = Path(file).expanduser()
    is_weights = path.name.endswith(SUFFIXES)
    if not is_weights or not path.is_file():
        reason = "is not a file" if is_weights else "is not a file of weights"
        raise UserError(
            f"weights {shown(file)} {reason}; allowed: {', '.join(WEIGHTS_BY_NAME)}, "
            f"or the path of a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file"
        )
    try:
        if path.suffix == ".safetensors":
            content: object = load_checked(path)
        else:
            # The arguments that training scripts save: plain values; a caller who allows them keeps that.
            arguments = {argparse.Namespace}.difference(torch.serialization.get_safe_globals())
            with (
                warnings.catch_warnings(action="ignore"),  # torch's own on sparse tensors, refused below
                torch.serialization.safe_globals([*arguments]),
            ):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"hold {shown(named[1])}," if named else "are damaged, or hold"
        raise UserError(
            f"weights {shown(file)} {what} more than tensors and plain values; "
            "save the network's state_dict alone (nothing in the file was executed)"
        ) from error
    except Exception as error:  # a damaged file fails in many ways, all of them the file's
        reason = "it is a TorchScript program" if "TorchScript" in str(error) else first_line(error)
        raise UserError(f"weights {shown(file)} cannot be read ({reason}); replace the file") from error
    content = _unwrapped(file, content, key)
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
    return dict(content)


def _unwrapped(file: str, content: object, key: str | None) -> object:
    """The state_dict that a checkpoint holds; anything else as it is."""
    inside = {
        str(name): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, Mapping)
    }
    if key is not None and key not in inside:
        raise UserError(
            f"weights {shown(file)} hold nothing under weights_key {shown(key)}; "
            f"allowed: {', '.join(map(shown, inside)) or 'none, leave weights_key out'}"
        )
    return next((inside[name] for name in ((key,) if key else _WRAPPERS) if name in inside), content)


def _without_prefixes(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefixes that all their names share, as far as a network has no such names."""
    while not own.keys() & weights.keys():
        names = [name for name in weights if name != _AVERAGED]
        prefix = next((each for each in _PREFIXES if all(name.startswith(each) for name in names)), None)
        if prefix is None or not names:
            break
        weights = {name.removeprefix(prefix): weights[name] for name in names}
    return weights


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
