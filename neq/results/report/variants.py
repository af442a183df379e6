"""The variants of a network that a device may run: onnxruntime in fp32, fp16 and int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from neq.results import int8_onnx
from neq.results.best_network import BestNetwork
from neq.results.int8_onnx import int8_forms, onnx_runner
from neq.results.onnx_file import is_as_written, onnx_content, silence

STATIC = tuple(f"int8 {types}" for types in int8_onnx.STATIC)


@dataclass(frozen=True)
class Variant:
    """A network in a runtime.

    Args:
        name: of the runtime and the precision.
        file_bytes: of its file.
        outputs: images float32 [B, 3, S, S] -> logits [B, classes].
    """

    name: str
    file_bytes: int
    outputs: Callable[[Tensor], Tensor]


def onnx_variants(best: BestNetwork, calibration: Tensor, threads: int) -> list[Variant]:
    """A network in onnxruntime on the CPU, in every precision that can be made of it.

    Args:
        best: the network. One with an exporter of its own (int8) is taken as it is exported.
        calibration: unlabelled images, float32 [N, 3, S, S].
        threads: of each operation.

    Raises:
        UserError: packages are missing, or the network cannot be exported.
    """
    content, _ = onnx_content(best)
    if is_as_written(best):
        return [Variant("onnxruntime", len(content), onnx_runner(content, threads, as_written=True))]
    found = [Variant("onnxruntime fp32", len(content), onnx_runner(content, threads))]
    for name, make in _makers(content, calibration):
        try:
            made = make()
            found.append(Variant(f"onnxruntime {name}", len(made), onnx_runner(made, threads)))
        except Exception:  # an operator that a precision does not have fails in its own way
            continue
    return found


def _makers(content: bytes, calibration: Tensor) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What makes each variant of an fp32 file, by its name."""
    yield "fp16", lambda: _half(content)
    with int8_forms(content, calibration) as forms:
        yield "int8 dynamic", forms.dynamic
        for name, types in zip(STATIC, int8_onnx.STATIC, strict=True):
            yield name, partial(forms.static, types)


def _half(content: bytes) -> bytes:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with silence():
        made: Any = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True)
    half: bytes = made.SerializeToString()
    return half


def best_int8(names: Sequence[str], agreements: Sequence[float], milliseconds: Sequence[float]) -> str | None:
    """Of the static int8 variants the one that agrees with fp32 most often; of equal ones the fastest.

    Args:
        names: of all variants.
        agreements: share of images for which each has the class of fp32.
        milliseconds: that each takes.
    """
    rated = zip(names, agreements, milliseconds, strict=True)
    int8 = [(-agreement, time, name) for name, agreement, time in rated if name.endswith(STATIC)]
    return min(int8)[2] if int8 else None
