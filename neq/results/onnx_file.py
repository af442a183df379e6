"""A network as an ONNX file, compared with torch before the file is written."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neq.results.best_network import BestNetwork, sample_images
from neq.utils.atomic_files import atomic_file
from neq.utils.errors import UserError, first_line
from neq.utils.seeds import generator

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "logits"
# Most that an output may differ, as a share of the largest output (of 1 where all are smaller).
TOLERANCE = 1e-4
IMAGES = 16


@dataclass(frozen=True)
class Exporter:
    """How the networks of a wing become ONNX.

    Args:
        export: returns the onnx.ModelProto of a network for images of this shape, from INPUT to OUTPUT.
        tolerance: as TOLERANCE.
        as_written: compare without the runtime's optimizations, which may round otherwise.
    """

    export: Callable[[nn.Module, Tensor], Any]
    tolerance: float
    as_written: bool = False


_exporters: dict[type[nn.Module], Exporter] = {}


def register_exporter(kind: type[nn.Module], exporter: Exporter) -> None:
    """Sets how networks of a class are exported; all others are traced by torch."""
    _exporters[kind] = exporter


@dataclass(frozen=True)
class Export:
    """What was exported, and how it was checked.

    Args:
        file_bytes: size of the file.
        opset: version of the operators.
        image_size: pixels a side.
        images: how many the check took.
        real: whether they were images of the data set, not random numbers.
        difference: the largest between an output of the file and of torch.
        allowed: the most that it might have been.
    """

    file_bytes: int
    opset: int
    image_size: int
    images: int
    real: bool
    difference: float
    allowed: float


def missing_packages() -> list[str]:
    """Which of PACKAGES are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def is_as_written(best: BestNetwork) -> bool:
    """Whether a network is run as it was exported, without the runtime's optimizations."""
    own = _exporters.get(type(best.network))
    return own is not None and own.as_written


def check_packages() -> None:
    """Makes sure that ONNX files can be written and checked.

    Raises:
        UserError: a package is missing.
    """
    missing = missing_packages()
    if missing:
        raise UserError(f"ONNX files need {', '.join(missing)}; pip install 'neq[onnx]' brings them")


def export_onnx(best: BestNetwork, path: Path, image_size: int | None = None) -> Export:
    """Writes a run's best network as an ONNX file, when `onnx_content` has checked it.

    Args:
        best, image_size: as of `onnx_content`.
        path: of the file; its folder exists.

    Raises:
        UserError: as of `onnx_content`; no file is left.
    """
    content, export = onnx_content(best, image_size)
    with atomic_file(path) as file:
        file.write(content)
    return export


def onnx_content(best: BestNetwork, image_size: int | None = None) -> tuple[bytes, Export]:
    """A run's best network as an ONNX file's content: images [batch, 3, S, S] -> logits [batch, classes].

    It is returned when onnxruntime gave what torch gives, for batches of two sizes, and not otherwise.

    Args:
        best: the network.
        image_size: S; none: that of the run.

    Raises:
        UserError: packages are missing, the network does not take images of this size, it cannot be exported,
            or what was exported computes something else.
    """
    check_packages()
    size = image_size or best.image_size
    images = sample_images(best, IMAGES, size)
    real = images is not None
    if images is None:
        images = torch.randn(IMAGES, 3, size, size, generator=generator(0, "onnx", size))
    expected = _outputs(best, images)
    own = _exporters.get(type(best.network))
    if own is None:
        model = _exported(best.network, images[:2], best.config.net_config.net_name)
    else:
        model = own.export(best.network, images[:2])
    for key, value in _properties(best, size).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    difference = _difference(content, images, expected, is_as_written(best))
    allowed = (TOLERANCE if own is None else own.tolerance) * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:  # not a number is no agreement
        raise UserError(
            f"the ONNX file of {best.folder} gives other outputs than torch: they differ by "
            f"{difference:.3g}, allowed is {allowed:.3g}; no file was written"
        )
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return content, Export(len(content), opset, size, len(images), real, difference, allowed)


def onnx_outputs(best: BestNetwork) -> Callable[[Tensor], Tensor]:
    """A run's best network in onnxruntime, fp32 on the CPU: images [B, 3, S, S] -> logits [B, classes].

    Raises:
        UserError: as of `onnx_content`.
    """
    content, _ = onnx_content(best)
    session = _session(content, is_as_written(best))
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _outputs(best: BestNetwork, images: Tensor) -> Tensor:
    """What torch gives, float32 [B, classes]."""
    with torch.no_grad():
        try:
            outputs: Tensor = best.network(images)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise UserError(
                f"{best.config.net_config.net_name} cannot be run on images of {images.shape[-1]} px "
                f"({first_line(error)}); leave --image-size out for the run's own, {best.image_size}"
            ) from error
    return outputs


def _exported(network: nn.Module, images: Tensor, net_name: str) -> Any:
    """The network as an onnx.ModelProto."""
    try:
        with silence():
            program = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        assert program is not None
        return program.model_proto
    except Exception as error:  # whatever a network does that ONNX does not know fails in its own way
        raise UserError(
            f"{net_name} cannot be exported to ONNX by this torch ({first_line(error)})"
        ) from error


def _difference(content: bytes, images: Tensor, expected: Tensor, as_written: bool) -> float:
    """The largest between the file's outputs and torch's, over a batch and over its first image alone."""
    session = _session(content, as_written)
    largest = []
    for count in (len(images), 1):
        (outputs,) = session.run([OUTPUT], {INPUT: images[:count].numpy()})
        assert outputs.shape == expected[:count].shape
        largest.append((torch.from_numpy(outputs) - expected[:count]).abs().max())
    return float(torch.stack(largest).max())


def _session(content: bytes, as_written: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _properties(best: BestNetwork, size: int) -> Mapping[str, str]:
    """What a file needs beside the graph, as text: JSON where it is more than a word."""
    settings = best.config.data_provider
    return {
        "classes": json.dumps(best.classes),
        "mean": json.dumps(best.mean_std.mean),
        "std": json.dumps(best.mean_std.std),
        "resizing": " ".join(str(best.resizing(size)).split()),
        "image_size": str(size),
        "net_name": best.config.net_config.net_name,
        "dataset": settings.dataset,
        "producer": "neq",
    }


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """A context for torch.onnx and onnxruntime, which report what a user can do nothing about."""
    said, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
