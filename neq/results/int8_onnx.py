"""Int8 forms of an fp32 ONNX file, by onnxruntime: dynamic, and static in QDQ form.

Dynamic: weights of linear layers, activations quantized as they come. Static: calibrated on images, with
activations in uint8 (u8s8) or int8 (s8s8), weights in int8 with a scale for each channel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neq.results.onnx_file import INPUT, OUTPUT, silence

# Only layers that are one product of matrices gain by it; convolutions become slower.
DYNAMIC = ("Gemm", "MatMul")
# What holds weights.
LAYERS = ("Conv", *DYNAMIC)
# The types of activations and weights of the static forms.
STATIC = ("u8s8", "s8s8")


class Int8Forms:
    """The int8 forms that are made of one file.

    Args:
        prepared: of the fp32 file, by onnxruntime's own preprocessing.
        calibration: unlabelled images, float32 [N, 3, S, S].
    """

    def __init__(self, prepared: Path, calibration: Tensor) -> None:
        self._prepared, self._calibration = prepared, calibration

    def layers(self) -> list[str]:
        """The nodes that hold weights and become int8, in their order."""
        import onnx

        nodes = onnx.load(self._prepared).graph.node
        return [node.name for node in nodes if node.op_type in LAYERS]

    def dynamic(self) -> bytes:
        """The dynamic form."""
        from onnxruntime.quantization import quantize_dynamic

        return self._made(
            lambda target: quantize_dynamic(
                self._prepared, target, op_types_to_quantize=list(DYNAMIC), per_channel=True
            )
        )

    def static(
        self,
        types: str,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
        images: int | None = None,
        layers_only: bool = False,
    ) -> bytes:
        """A static form.

        Args:
            types: one of STATIC.
            only: nodes that become int8; empty: all that can.
            without: nodes that stay in floating point.
            images: to calibrate on, the first ones; none: all.
            layers_only: what lies between layers (sums, products, activations) stays in floating point.
        """
        from onnxruntime.quantization import QuantType, quantize_static

        activations = QuantType.QUInt8 if types == STATIC[0] else QuantType.QInt8
        return self._made(
            lambda target: quantize_static(
                self._prepared,
                target,
                _reader(self._calibration[:images]),
                per_channel=True,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=list(only) or None,
                nodes_to_exclude=list(without) or None,
                op_types_to_quantize=list(LAYERS) if layers_only else None,
            )
        )

    def _made(self, make: Callable[[Path], Any]) -> bytes:
        target = self._prepared.with_name("int8.onnx")
        with silence():
            make(target)
        return target.read_bytes()


@contextmanager
def int8_forms(content: bytes, calibration: Tensor) -> Iterator[Int8Forms]:
    """Prepares an fp32 file, in a folder that is removed again.

    Args:
        content: of the file.
        calibration: unlabelled images, float32 [N, 3, S, S].
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="neq-") as place:
        source, prepared = Path(place) / "fp32.onnx", Path(place) / "prepared.onnx"
        source.write_bytes(content)
        with silence():
            quant_pre_process(source, prepared)
        yield Int8Forms(prepared, calibration)


def onnx_runner(content: bytes, threads: int, as_written: bool = False) -> Callable[[Tensor], Tensor]:
    """An ONNX file in onnxruntime on the CPU: images float32 [B, 3, S, S] -> logits [B, classes].

    Args:
        content: of the file.
        threads: of each operation.
        as_written: without the runtime's optimizations.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _reader(images: Tensor) -> Any:
    """The images as onnxruntime's calibration reads them, one at a time."""
    from onnxruntime.quantization import CalibrationDataReader

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(images.split(1))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    return Images()
