"""Reads the int8 networks that tiny-training publishes.

A file is a ZIP archive with one pickle in it. Nothing of it is executed: the four globals that the pickle
needs are played by this module, and what they build is checked before it is used.

Source: Lin et al., "On-device training under 256KB memory", NeurIPS 2022 (MCUNetV3).
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from neq.config.explain import expected
from neq.config.schema import Section
from neq.int8.description import HIGHEST, IMAGE, LOWEST, Add, Conv, Description, Operation, Pool, Quantization
from neq.utils.errors import UserError, first_line, shown

IMAGE_QUANTIZATION = Quantization(2 / 255, 0)
_MEMBER, _VERSION = "archive/data.pkl", "archive/version"
_MOST_BYTES = 2**26
_TYPES = {"i1": "<i1", "i4": "<i4", "f4": "<f4"}


def read_tiny_training(file: str | Path) -> Description:
    """The int8 network in a file.

    Raises:
        UserError: no such file, a damaged one, or one that holds anything else; nothing in it is executed.
    """
    path = Path(file).expanduser()
    try:
        content = _Network.model_validate(_unpickled(path))
        *body, head = content.operations()
        assert isinstance(head, Conv)
        return Description(IMAGE_QUANTIZATION, tuple(body), head)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {expected(first)}"
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
    except Exception as error:  # a damaged file fails in many ways, all of them the file's
        reason = first_line(error)
    raise UserError(
        f"{shown(str(path))} is no int8 network of tiny-training ({reason}); give one of its .pkl files "
        "(nothing in the file was executed)"
    )


def _unpickled(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if sorted(archive.namelist()) != [_MEMBER, _VERSION]:
            raise ValueError(f"members other than {_MEMBER} and {_VERSION}")
        if archive.getinfo(_MEMBER).file_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        return _Unpickler(io.BytesIO(archive.read(_MEMBER))).load()


class _Array:
    """Plays numpy.ndarray: keeps the state that a pickle sets, as an array of a plain type."""

    values: np.ndarray

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple(shape), _Type() as kind, False, bytes(content)):
                self.values = np.frombuffer(content, kind.name).reshape(shape)
            case _:
                raise pickle.UnpicklingError("an array in another form")


class _Type:
    """Plays numpy.dtype: little-endian int8, int32 or float32."""

    def __init__(self, name: object, *flags: object) -> None:
        self.name = _TYPES[str(name)]

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or state[:2] not in ((3, "<"), (3, "|")):
            raise pickle.UnpicklingError("numbers in another form")


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the four globals and nothing else."""

    _left = _MOST_BYTES

    def _encode(self, text: object, encoding: object) -> bytes:
        """Plays _codecs.encode, by which protocol 2 writes bytes; in sum they are limited."""
        if not isinstance(text, str) or encoding != "latin1" or len(text) > self._left:
            raise pickle.UnpicklingError("bytes in another form")
        self._left -= len(text)
        return text.encode("latin1")

    def find_class(self, module_name: str, global_name: str) -> Any:
        match module_name, global_name:  # functions are made anew, since a pickle can set their attributes
            case "_codecs", "encode":
                return lambda text, encoding: self._encode(text, encoding)
            case "numpy", "ndarray":
                return _Array
            case "numpy", "dtype":
                return _Type
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return lambda kind, shape, code: _Array()
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it asks for objects outside the file")


_Scale = Annotated[float, Field(gt=0)]
_Zero = Annotated[int, Field(ge=LOWEST, le=HIGHEST)]


def _array(dtype: type[np.generic]) -> AfterValidator:
    def checked(array: _Array) -> _Array:
        if array.values.dtype != dtype:
            raise ValueError(f"an array of {np.dtype(dtype).name} is expected")
        return array

    return AfterValidator(checked)


class _Part(Section):
    """A part of the file: what it may hold, and of which type."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)


class _Rescaled(_Part):
    """Quantization of input and output."""

    x_scale: _Scale
    x_zero: _Zero
    y_scale: _Scale
    y_zero: _Zero

    @property
    def input(self) -> Quantization:
        return Quantization(self.x_scale, self.x_zero)

    @property
    def output(self) -> Quantization:
        return Quantization(self.y_scale, self.y_zero)


class _ConvParameters(_Rescaled):
    weight: Annotated[_Array, _array(np.int8)]
    bias: Annotated[_Array, _array(np.int32)]
    w_scales: Annotated[_Array, _array(np.float32)]


class _Conv(_Part):
    in_channel: int
    out_channel: int
    kernel_size: tuple[int, int]
    stride: Annotated[int, Field(ge=1)]
    groups: Annotated[int, Field(ge=1)]
    in_shape: int | None = None
    out_shape: int | None = None
    depthwise: bool = False
    act: None = None
    params: _ConvParameters

    @model_validator(mode="after")
    def _is_of_its_weight(self) -> _Conv:
        shape = (self.out_channel, self.in_channel // self.groups, *self.kernel_size)
        if self.params.weight.values.shape != shape:
            raise ValueError(f"weight has the shape {self.params.weight.values.shape}, not {shape}")
        return self

    def operation(self, name: str, source: str) -> Conv:
        """The convolution of an operation's result."""
        own = self.params
        weight, bias, scales = (torch.tensor(array.values) for array in (own.weight, own.bias, own.w_scales))
        return Conv(name, (source,), own.output, weight, bias, scales, self.stride, self.groups)


class _Residual(_Part):
    in_channel: int
    in_shape: int
    params: _Rescaled


class _Block(_Part):
    pointwise1: _Conv | None
    depthwise: _Conv
    pointwise2: _Conv
    residual: _Residual | None
    se: None


class _Network(_Part):
    first_conv: _Conv
    blocks: list[_Block]
    feature_mix: None
    classifier: _Conv

    def operations(self) -> Iterator[Operation]:
        """The operations in order, the classifier last; each reads codes as they were written."""
        made: dict[str, Quantization] = {IMAGE: IMAGE_QUANTIZATION}
        last = IMAGE

        def checked(operation: Operation, source: str, given: Quantization) -> Operation:
            nonlocal last
            if made[source] != given:
                raise ValueError(f"{operation.name} reads {source} with another scale or zero point")
            made[operation.name], last = operation.output, operation.name
            return operation

        yield checked(self.first_conv.operation("first_conv", last), last, self.first_conv.params.input)
        for number, block in enumerate(self.blocks):
            start, name = last, f"blocks.{number}"
            for key in ("pointwise1", "depthwise", "pointwise2"):
                conv: _Conv | None = getattr(block, key)
                if conv is not None:
                    yield checked(conv.operation(f"{name}.{key}", last), last, conv.params.input)
            if block.residual is not None:
                params = block.residual.params
                yield checked(Add(f"{name}.residual", (start, last), params.output), start, params.input)
        yield checked(Pool("pool", (last,), made[last]), last, made[last])
        yield checked(self.classifier.operation("classifier", last), last, self.classifier.params.input)
