"""The variants of a network that a device may run: onnxruntime in fp32, fp16 and int8.

Int8 is dynamic (weights of linear layers, activations quantized as they come) or static in QDQ form,
calibrated on images, with activations in uint8 (u8s8) or int8 (s8s8) and a scale for each channel of weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neq.results.best_network import BestNetwork
from neq.results.onnx_file import INPUT, OUTPUT, is_as_written, onnx_content, silence

# Only layers that are one product of matrices gain by it; convolutions become slower.
DYNAMIC = ("Gemm", "MatMul")
STATIC = ("int8 u8s8", "int8 s8s8")


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
    found = [_variant("onnxruntime fp32", content, threads, is_as_written(best))]
    if is_as_written(best):
        return [Variant("onnxruntime", found[0].file_bytes, found[0].outputs)]
    with tempfile.TemporaryDirectory(prefix="neq-") as place, silence():
        source = Path(place) / "fp32.onnx"
        source.write_bytes(content)
        for name, make in _makers(source, calibration):
            target = Path(place) / "variant.onnx"
            try:
                make(target)
                found.append(_variant(f"onnxruntime {name}", target.read_bytes(), threads))
            except Exception:  # an operator that a precision does not have fails in its own way
                continue
    return found


def _makers(source: Path, calibration: Tensor) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """What writes each variant of an fp32 file, by its name."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.float16 import convert_float_to_float16

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(calibration.split(1))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    prepared = source.with_name("prepared.onnx")

    def static(activations: QuantType) -> Callable[[Path], Any]:
        return lambda target: quantize_static(
            prepared,
            target,
            Images(),
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
        )

    def dynamic(target: Path) -> None:
        quantize_dynamic(prepared, target, op_types_to_quantize=list(DYNAMIC), per_channel=True)

    yield (
        "fp16",
        lambda target: onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target),
    )
    quant_pre_process(source, prepared)
    yield "int8 dynamic", dynamic
    yield STATIC[0], static(QuantType.QUInt8)
    yield STATIC[1], static(QuantType.QInt8)


def _variant(name: str, content: bytes, threads: int, as_written: bool = False) -> Variant:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Variant(
        name, len(content), lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
    )


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
