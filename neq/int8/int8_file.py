"""Files of int8 networks: safetensors with the codes and scales, its metadata with the operations as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from safetensors import safe_open
from torch import Tensor

from neq.config.explain import expected
from neq.config.schema import Section
from neq.int8.description import (
    Add,
    Conv,
    Description,
    Images,
    Linear,
    MaxPool,
    Multiply,
    Operation,
    Pool,
    Quantization,
    Table,
)
from neq.networks.safetensors_file import checked_bytes, load_checked
from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, first_line, shown

_KEY = "neq_int8"
_CONV, _LINEAR, _TABLE = ("weight", "bias", "scales"), ("weight", "bias"), ("table", "slopes")
_PLAIN: dict[str, type[Operation]] = {"add": Add, "multiply": Multiply, "pool": Pool}


class _Operation(Section):
    """An operation, its tensors apart."""

    type: Literal["conv", "table", "maxpool", "add", "multiply", "pool"]
    name: str
    inputs: tuple[str, ...]
    scale: float
    zero: int
    stride: int = 1
    groups: int = 1
    kernel: int = 1
    padding: int = 0

    def made(self, tensors: dict[str, Tensor]) -> Operation:
        """The operation; its tensors are removed from the file's."""
        given = self.name, self.inputs, Quantization(self.scale, self.zero)
        if self.type == "conv":
            weight, bias, scales = _taken(tensors, self.name, _CONV)
            return Conv(*given, weight, bias, scales, self.stride, self.groups)
        if self.type == "table":
            return Table(*given, *_taken(tensors, self.name, _TABLE))
        if self.type == "maxpool":
            return MaxPool(*given, self.kernel, self.stride, self.padding)
        return _PLAIN[self.type](*given)


class _Linear(Section):
    """A classifier in floating point, its tensors apart."""

    type: Literal["linear"]
    name: str
    inputs: tuple[str, ...]

    def made(self, tensors: dict[str, Tensor]) -> Linear:
        """The classifier; its tensors are removed from the file's."""
        return Linear(self.name, self.inputs, *_taken(tensors, self.name, _LINEAR))


class _Images(Section):
    """The images that a network was made for."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class _Structure(Section):
    """A network without its tensors."""

    format: Literal[1] = 1
    image: tuple[float, int]
    operations: tuple[_Operation, ...]
    head: _Operation | _Linear
    images: _Images = _Images(**vars(Images()))
    classes: tuple[str, ...] = ()


def write_int8(path: Path, network: Description) -> None:
    """Writes an int8 network; the same network gives the same bytes.

    Raises:
        OSError: the file cannot be written; a former one is kept.
    """
    structure, tensors = taken_apart(network)
    with atomic_file(path) as file:
        file.write(checked_bytes(tensors, **{_KEY: structure}))


def taken_apart(network: Description) -> tuple[str, dict[str, Tensor]]:
    """An int8 network as JSON and its tensors by name."""
    tensors: dict[str, Tensor] = {}
    for each in (*network.operations, network.head):
        keys = [key for key in (*_CONV, *_TABLE) if hasattr(each, key)]
        tensors |= {f"{each.name}.{key}": getattr(each, key).contiguous() for key in keys}
    structure = _Structure.model_validate(
        {
            "image": (network.image.scale, network.image.zero),
            "operations": [_fields(each) for each in network.operations],
            "head": _fields(network.head),
            "images": vars(network.images),
            "classes": network.classes,
        }
    )
    return structure.model_dump_json(), tensors


def put_together(written: str, tensors: dict[str, Tensor]) -> Description:
    """The int8 network of what `taken_apart` returned.

    Raises:
        ValueError: it is none.
    """
    structure, left = _Structure.model_validate_json(written), dict(tensors)
    operations = tuple(each.made(left) for each in structure.operations)
    head = structure.head.made(left)
    if not isinstance(head, Conv | Linear):
        raise ValueError("its head is no classifier")
    if left:
        raise ValueError(f"{next(iter(left))} is of no operation")
    images = Images(**dict(structure.images))
    return Description(Quantization(*structure.image), operations, head, images, structure.classes)


def is_int8_file(path: Path) -> bool:
    """Whether a file is one of `write_int8`, by its metadata."""
    try:
        with safe_open(path, "pt") as file:
            return _KEY in (file.metadata() or {})
    except Exception:  # it is no safetensors file, or a damaged one
        return False


def read_int8(file: str | Path) -> Description:
    """The int8 network in a file.

    Raises:
        UserError: no such file, a damaged one, or one of something else.
    """
    path = Path(file).expanduser()
    try:
        tensors = load_checked(path)
        with safe_open(path, "pt") as opened:
            written = (opened.metadata() or {}).get(_KEY)
        if written is None:
            raise ValueError("its metadata name no operations")
        return put_together(written, tensors)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {expected(first)}"
    except Exception as error:  # a damaged file fails in many ways, all of them the file's
        reason = first_line(error)
    raise UserError(f"{shown(str(path))} is no int8 network of neq ({reason}); write it with write_int8")


def _fields(operation: Operation | Linear) -> dict[str, object]:
    """What the JSON says of an operation."""
    fields: dict[str, object] = {
        "type": type(operation).__name__.lower(),
        "name": operation.name,
        "inputs": operation.inputs,
    }
    if isinstance(operation, Operation):
        fields |= vars(operation.output)
    plain = ("stride", "groups", "kernel", "padding")
    return fields | {key: getattr(operation, key) for key in plain if hasattr(operation, key)}


def _taken(tensors: dict[str, Tensor], name: str, keys: Sequence[str]) -> list[Tensor]:
    """The tensors of an operation, removed from the file's."""
    missing = [key for key in keys if f"{name}.{key}" not in tensors]
    if missing:
        raise ValueError(f"{name}.{missing[0]} is missing")
    return [tensors.pop(f"{name}.{key}") for key in keys]
