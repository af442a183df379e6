"""How fast images are loaded: what decoding, augmenting and normalizing cost, what workers and caches gain.

python -m benchmarks.data_loading --root FOLDER --image-size 224 --workers 0,1,2

The folder is one that `--dataset image_folder` reads; without it photos of noise and shades are made.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.common import at_least, machine, run_benchmark
from neq.cli.parsing import Parser
from neq.config import dataset
from neq.config.schema import DataProvider
from neq.data import Data, open_data
from neq.data.decoding import read_image, why_unreadable
from neq.data.image_folder import open_image_folder
from neq.data.transforms import eval_transform, normalization, train_transform
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError

CPU = torch.device("cpu")
# A photo of Oxford Flowers is about as large.
_MADE_SIZE = (500, 375)
_LUMA = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)


def jitter_batch(images: Tensor, strength: float) -> Tensor:
    """Colour jitter of a whole batch, each image with factors and an order of its own.

    Args:
        images: uint8 [B, 3, S, S].
        strength: as of `v2.ColorJitter`, for brightness, contrast and saturation.
    """
    count = len(images)
    order = torch.rand(count, 3).argsort(1)
    factors = torch.empty(count, 3).uniform_(1 - strength, 1 + strength)
    for place in range(3):
        for change in range(3):
            (chosen,) = (order[:, place] == change).nonzero(as_tuple=True)
            if not len(chosen):
                continue
            values = images[chosen].float()
            grey = (values * _LUMA).sum(1, keepdim=True).floor()
            toward = (torch.zeros(()), grey.mean((1, 2, 3), keepdim=True), grey)[change]
            values = torch.lerp(toward.expand_as(values), values, factors[chosen, change].view(-1, 1, 1, 1))
            images = images.index_copy(0, chosen, values.clamp_(0, 255).to(torch.uint8))
    return images


def measure_stages(files: list[str], size: int, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds of CPU time an image of each stage, in one process.

    Args:
        files: photos.
        size: pixels a side of the network's input.
        batch: images a batch.
        rounds: the fastest of so many counts.
    """
    entry = dataset("image_folder")
    photos = [read_image(file) for file in files]
    geometry = train_transform(DataProvider(color_aug=0), size, "photo")
    jitter, normalize = v2.ColorJitter(0.4, 0.4, 0.4), normalization(entry.mean_std)
    evaluate = eval_transform(size, "photo")
    crops = [geometry(photo) for photo in photos]
    groups = [crops[start : start + batch] for start in range(0, len(crops), batch)]
    batches = [torch.stack(group) for group in groups]
    stages: dict[str, Callable[[], Iterator[object]]] = {
        "check (a JPEG at an eighth)": lambda: map(why_unreadable, files),
        "decode": lambda: map(read_image, files),
        "crop, resize and flip": lambda: map(geometry, photos),
        "colour jitter": lambda: map(jitter, crops),
        "colour jitter, on batches": lambda: (jitter_batch(images, 0.4) for images in batches),
        "resize for evaluation": lambda: map(evaluate, photos),
        "normalize, then collate": lambda: (torch.stack(list(map(normalize, group))) for group in groups),
        "collate, then normalize": lambda: (normalize(torch.stack(group)) for group in groups),
    }
    return {
        name: 1000 * _fastest(make, rounds, time.process_time) / len(files) for name, make in stages.items()
    }


def measure_loading(
    root: Path, size: int, batch: int, workers: list[int], rounds: int
) -> list[dict[str, Any]]:
    """Images a second of training and evaluation batches, by workers and cache.

    Args:
        root: the image folder.
        size: pixels a side of the network's input.
        batch: images a batch.
        workers: numbers of loader processes.
        rounds: the fastest of so many passes counts, after one that starts workers and fills the cache.
    """
    results = []
    for n_worker in workers:
        for cache in ("none", "memory", "disk"):
            given = {"dataset": "image_folder", "root": str(root), "image_size": size, "n_worker": n_worker}
            settings = DataProvider(**given, cache=cache, base_batch_size=batch)
            with open_data(settings, dataset("image_folder"), 0) as data:
                row = {"workers": n_worker, "cache": cache, **_rates(data, batch, rounds)}
            results.append(row)
    return results


def _rates(data: Data, batch: int, rounds: int) -> dict[str, float]:
    """Images a second of training and evaluation, and the seconds of the first training pass."""
    first = _seconds(lambda: data.train_batches(0))
    training = _fastest(lambda: data.train_batches(0), rounds)
    _seconds(lambda: data.eval_batches("test"))
    evaluation = _fastest(lambda: data.eval_batches("test"), rounds)
    return {
        "train": data.steps_per_epoch * min(batch, data.counts["train"]) / training,
        "evaluate": data.counts["test"] / evaluation,
        "first_pass_s": first,
    }


@contextmanager
def made_photos(count: int) -> Iterator[Path]:
    """A folder of JPEG photos of two classes: shades with some noise, which compress like photos.

    Args:
        count: of photos.
    """
    rng = np.random.default_rng(0)
    width, height = _MADE_SIZE
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            folder = Path(name) / f"class{number % 2}"
            folder.mkdir(exist_ok=True)
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            shades = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
            noisy = np.clip(shades + rng.normal(0, 8, shades.shape), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
            (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
        yield Path(name)


def _seconds(make: Callable[[], Iterator[object]], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes to go through an iterator, from making it on; nothing is kept."""
    start = clock()
    deque(make(), maxlen=0)
    return clock() - start


def _fastest(
    make: Callable[[], Iterator[object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    return min(_seconds(make, clock) for _ in range(rounds))


def _print(stages: dict[str, float], loading: list[dict[str, Any]]) -> None:
    console = Console()
    table = Table("stage, one process", "CPU ms an image", "images/s")
    for name, milliseconds in stages.items():
        table.add_row(name, f"{milliseconds:.3f}", f"{1000 / milliseconds:,.0f}")
    console.print(table)
    table = Table("workers", "cache", "training images/s", "evaluation images/s", "first training pass, s")
    for row in loading:
        figures = (f"{row['train']:,.0f}", f"{row['evaluate']:,.0f}", f"{row['first_pass_s']:.2f}")
        table.add_row(str(row["workers"]), row["cache"], *figures)
    console.print(table)


def main(argv: list[str]) -> None:
    """The benchmark's command."""
    parser = Parser(prog="python -m benchmarks.data_loading", description=__doc__)
    parser.add_argument("--root", type=Path, help="image folder; none: photos are made")
    parser.add_argument("--image-size", type=at_least(8), default=224)
    parser.add_argument("--batch-size", type=at_least(2), default=32)
    parser.add_argument("--images", type=at_least(100), default=512, help="made, and measured by stage")
    parser.add_argument("--workers", default="0,1,2", help="numbers of loader processes, as 0,1,2")
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    try:
        workers = [int(count) for count in given.workers.split(",")]
    except ValueError:
        workers = [-1]
    if min(workers) < 0:
        raise UserError(
            f"--workers {given.workers!r} is not allowed; give whole numbers of 0 or more, as 0,2"
        )
    torch.set_num_threads(1)
    with made_photos(given.images) as made, tempfile.TemporaryDirectory() as cache:
        os.environ["NEQ_CACHE"] = cache
        root = given.root or made
        files = list(open_image_folder(str(root)).files)
        some = files[:: max(1, len(files) // given.images)][: given.images]
        stages = measure_stages(some, given.image_size, given.batch_size, given.rounds)
        loading = measure_loading(root, given.image_size, given.batch_size, workers, given.rounds)
    _print(stages, loading)
    if given.output is not None:
        report = {"stages_ms": stages, "loading": loading, "machine": machine(CPU)}
        write_text(given.output, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_benchmark(main))
