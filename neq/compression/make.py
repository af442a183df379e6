"""A compressed network of a run in a folder: made once, with its figures before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neq.compression.changed import Compressed
from neq.compression.deployment import Deployment, deploy
from neq.compression.movement import movement, run_start
from neq.compression.network_folder import ONNX_FILE, read_provenance, read_start, write_compressed
from neq.compression.run_images import RunImages, open_images
from neq.compression.size import Size, size_of
from neq.compression.steps import Inputs, compress
from neq.results.best_network import BestNetwork, load_best
from neq.results.int8_onnx import onnx_runner
from neq.runs import load_run
from neq.runs.layout import CLASSES, CONFIG, RECIPE
from neq.utils.atomic_files import file_sha256
from neq.utils.errors import UserError


@dataclass(frozen=True)
class Figures:
    """The figures of a network.

    Args:
        size: how large it is.
        top1: accuracy on the test split in %.
    """

    size: Size
    top1: float

    def to_json(self) -> dict[str, Any]:
        """As compression.json holds them."""
        return {**asdict(self.size), "test_top1": self.top1}


@dataclass(frozen=True)
class Made:
    """What was made, and its figures.

    Args:
        before, after: of the network.
        deployment: the int8 ONNX file; none where none was asked for.
        top1: accuracy of that file on the test split in %.
    """

    before: Figures
    after: Figures
    deployment: Deployment | None = None
    top1: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As compression.json holds it."""
        found: dict[str, Any] = {"before": self.before.to_json(), "after": self.after.to_json()}
        if self.deployment is not None:
            figures = {key: value for key, value in vars(self.deployment).items() if key != "content"}
            size = len(self.deployment.content)
            found["int8"] = {"file": ONNX_FILE, **figures, "bytes": size, "test_top1": self.top1}
        return found


def make(
    source: Path,
    folder: Path,
    steps: Mapping[str, Any],
    overwrite: bool = False,
    quantize: Mapping[str, Any] | None = None,
) -> Made | None:
    """Writes a compressed network of a run; one that was made before of the same by the same steps stays.

    Args:
        source: folder of the run, or of a compressed network.
        folder: of what is written.
        steps: as of `neq.compression.compress`.
        overwrite: replace what else the folder holds.
        quantize: `form`, and for "mixed" `least`, of `neq.compression.deployment.deploy`; none: no int8 file.

    Returns:
        What was made; none where it was made before.

    Raises:
        UserError: a step that this network does not allow, or a folder that holds something else.
    """
    asked = {"from": str(source), "sha256": file_sha256(load_run(source).best_weights), "steps": dict(steps)}
    asked |= {"described": _described(source)} | ({} if quantize is None else {"quantize": dict(quantize)})
    there = read_provenance(folder)
    wanted = ("sha256", "steps", "described", "quantize")
    if there is not None and all(there.get(key) == asked.get(key) for key in wanted):
        return None
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"--output {folder} holds something else; give another folder, or --force")
    best = load_best(source)
    before = read_start(best)
    with open_images(best) as images:
        made = compress(before, steps, inputs_of(best, images))
        found = Made(_figures(before, best, images), _figures(made, best, images))
        if quantize is not None:
            of = replace(best, network=made.network, head=made.recipe.head)
            int8 = deploy(of, images=images.unlabelled(), **quantize)
            found = replace(found, deployment=int8, top1=images.top1(_InOnnxRuntime(int8.content)))
    content = None if found.deployment is None else found.deployment.content
    write_compressed(folder, made, best, {**asked, **found.to_json()}, content)
    return found


def inputs_of(best: BestNetwork, images: RunImages) -> Inputs:
    """What the steps look at when they compress the best network of a run."""
    return Inputs(
        torch.zeros(1, 3, best.image_size, best.image_size),
        images.batches,
        lambda: run_start(best),
        lambda: movement(best, run_start(best), images.data.velocity_images()),
    )


def part_of(steps: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """The steps of one of several rounds, which leave together what one whole step leaves.

    Args:
        steps: as of `neq.compression.compress`.
        rounds: n; of a share s each round takes 1 - (1 - s)^(1 / n).
    """
    parts = dict(steps)
    for name in {"prune", "sparsify"} & steps.keys() if rounds > 1 else ():
        parts[name] = {**steps[name], "share": 1 - (1 - steps[name]["share"]) ** (1 / rounds)}
    return parts


def _figures(made: Compressed, best: BestNetwork, images: RunImages) -> Figures:
    return Figures(size_of(made.network, best.image_size), images.top1(made.network))


class _InOnnxRuntime(nn.Module):
    """An ONNX file, evaluated as a network is."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._run = onnx_runner(content, torch.get_num_threads())

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x.contiguous())


def _described(folder: Path) -> str:
    """A hash of all but the weights that a compressed network has from its source."""
    files = [path for path in (folder / name for name in (CONFIG, CLASSES, RECIPE)) if path.exists()]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
