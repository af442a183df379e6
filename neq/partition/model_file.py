"""Models as JSON in the form of SyncNAS: read, written, checked.

A block is `[side of its input, kernel, stride, in, expanded, out]`, stem and head are
`[in, out, kernel, stride]`. A stage of a plain network is a list of blocks, of a branched one
{"0": blocks, "1": blocks}. `eps` is ignored: all batch norms have torch's.

Source: Kang et al., "SyncNAS", LCTES 2023, model files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neq.partition.model import STAGES, Block, Blocks, Conv, Model, Stage
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, first_line, shown

MAX_BYTES = 2**20
_STAGES = [str(number) for number in range(STAGES)]
_NEEDED = ("name", "act", "stem", "head", "bn_momentum", *_STAGES)
_ALLOWED = (*_NEEDED, "sync", "eps")


def read_model(path: str | Path) -> Model:
    """The model in a JSON file.

    Raises:
        UserError: no such file, or one that holds no model, in one line with the first fault.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"model file {shown(str(path))} cannot be read ({reason})") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"model file {shown(str(path))} is larger than {MAX_BYTES} bytes: it is no model")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"model file {shown(str(path))} is no JSON ({first_line(error)})") from None
    try:
        return model_of(content)
    except UserError as error:
        raise UserError(f"model file {shown(str(path))}: {error}") from None


def write_model(path: Path, model: Model) -> None:
    """Writes a model as JSON, in the form of the published files."""
    write_text(path, json.dumps(mapping_of(model), allow_nan=False))


def mapping_of(model: Model) -> dict[str, Any]:
    """A model as values of JSON, under the keys of a model file and in their order."""
    momentum = {"bn_momentum": model.bn_momentum}
    of_stages = {number: _stage_values(stage) for number, stage in zip(_STAGES, model.stages, strict=True)}
    ends = [_conv_values(conv) for conv in (model.stem, model.head)]
    start = {"name": model.name, "act": model.act, "stem": ends[0], "head": ends[1]}
    if model.sync is None:
        return {**start, **of_stages, **momentum}
    return {**start, **momentum, **of_stages, "sync": list(model.sync)}


def model_of(content: Any) -> Model:
    """The model that values of JSON describe.

    Raises:
        UserError: they describe none; the first fault.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"a mapping with keys name, act, stem, ... is expected, not {shown(content)}")
    for key in _NEEDED:
        if key not in content:
            raise UserError(f"{key} is missing")
    for key in content:
        if key not in _ALLOWED:
            raise UserError(f"key {shown(key)} is unknown; allowed: {', '.join(_ALLOWED)}")
    momentum = content["bn_momentum"]
    if isinstance(momentum, bool) or not isinstance(momentum, (int, float)):
        raise UserError(f"bn_momentum {shown(momentum)} is not allowed: a number is expected")
    sync = content.get("sync")
    if sync is not None and not isinstance(sync, list):
        raise UserError(f"sync {shown(sync)} is not allowed: a list of n, a and c is expected")
    return Model(
        name=content["name"],
        act=content["act"],
        stem=Conv(*_numbers("stem", content["stem"], 4)),
        head=Conv(*_numbers("head", content["head"], 4)),
        bn_momentum=momentum,
        stages=tuple(_stage(number, content[number], sync is not None) for number in _STAGES),
        sync=None if sync is None else tuple(sync),
    )


def _conv_values(conv: Conv) -> list[int]:
    return [conv.in_channels, conv.out_channels, conv.kernel, conv.stride]


def _stage_values(stage: Stage) -> object:
    branches = [
        [[b.side, b.kernel, b.stride, b.in_channels, b.expanded, b.out_channels] for b in blocks]
        for blocks in stage
    ]
    return branches[0] if len(branches) == 1 else {str(n): blocks for n, blocks in enumerate(branches)}


def _stage(number: str, content: Any, is_branched: bool) -> Stage:
    if not is_branched:
        return (_blocks(f"stage {number}", content),)
    if not isinstance(content, Mapping) or content.keys() != {"0", "1"}:
        raise UserError(f'stage {number}: branches {{"0": [..], "1": [..]}} are expected beside sync')
    return tuple(_blocks(f"stage {number}, branch {branch}", content[branch]) for branch in ("0", "1"))


def _blocks(place: str, content: Any) -> Blocks:
    if isinstance(content, Mapping):
        raise UserError(f"{place} has branches, but there is no sync; give sync, or a list of blocks")
    if not isinstance(content, list) or not content:
        raise UserError(f"{place}: a list of blocks is expected, not {shown(content)}")
    return tuple(
        Block(*_numbers(f"{place}, block {index}", values, 6)) for index, values in enumerate(content)
    )


def _numbers(place: str, values: Any, count: int) -> list[int]:
    is_list = isinstance(values, list) and len(values) == count
    if not is_list or any(isinstance(each, bool) or not isinstance(each, int) for each in values):
        raise UserError(f"{place}: {count} whole numbers are expected, not {shown(values)}")
    return values
