"""How fast a network infers on this machine, in torch and in onnxruntime; kept beside the run as speed.json.

Protocol: the variants take turns, after warm-ups, preprocessing apart; of every variant the median and the
minimum of the rounds, with the same number of threads in both runtimes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from neq.results.best_network import BestNetwork, load_best, samples
from neq.results.onnx_file import missing_packages
from neq.results.prediction import torch_outputs
from neq.results.report.variants import Variant, best_int8, onnx_variants
from neq.runs import load_run
from neq.runs.environment import current_environment
from neq.runs.layout import SPEED
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import file_sha256, write_text
from neq.utils.cpu import cpu_flags
from neq.utils.errors import UserError
from neq.utils.seeds import generator

VERSION = 1
BATCHES = (1, 32)
WARM_UPS, ROUNDS, LEAST_ROUNDS = 10, 50, 5
# Rounds of one batch size end after so many seconds, though not before LEAST_ROUNDS.
SECONDS = 60.0
CALIBRATED, COMPARED = 64, 256
CPU = torch.device("cpu")


@dataclass(frozen=True)
class VariantSpeed:
    """What was measured of a variant.

    Args:
        name: of the runtime and the precision.
        file_bytes: of its file.
        milliseconds: median of a batch, for each of BATCHES.
        least: minimum of a batch, for each of BATCHES.
        rounds: that they are of, for each of BATCHES.
        agreement: share of the compared images that it gives the class of torch.
        accuracy: share of the compared images that it is right on; none: their labels are not known.
    """

    name: str
    file_bytes: int
    milliseconds: tuple[float, ...]
    least: tuple[float, ...]
    rounds: tuple[int, ...]
    agreement: float
    accuracy: float | None

    @property
    def fps(self) -> tuple[float, ...]:
        """Images a second, by the medians."""
        return tuple(1000 * size / each for size, each in zip(BATCHES, self.milliseconds, strict=True))


@dataclass(frozen=True)
class Speed:
    """The inference of a run's best network on one machine.

    Args:
        variants: of the network.
        int8: the name of the int8 variant to use, by agreement; none: there is none.
        images: that variants were compared on.
        real: whether they are images of the test split, not random numbers.
        environment: fields of `Environment`, and of onnxruntime and the CPU.
        missing: why there is torch alone; empty where there is more.
    """

    variants: tuple[VariantSpeed, ...]
    int8: str | None
    images: int
    real: bool
    environment: dict[str, Any]
    missing: str = ""


def speed(folder: Path, notes: Callable[[str], object] = lambda line: None) -> Speed:
    """The speed of a run's best network: what was measured before, else measured now and kept.

    Args:
        folder: of the run, or of a copy of its network.
        notes: called with a line where it is measured, and where its file cannot be written.

    Raises:
        UserError: the run has no network yet.
    """
    weights, path = file_sha256(load_run(folder).best_weights), folder / SPEED
    kept = _read(path, weights)
    if kept is not None:
        return kept
    notes(
        f"{folder}: measuring the speed of inference, which takes a minute or more (--no-speed leaves it out)"
    )
    found = measure(load_best(folder))
    try:
        write_text(
            path, json.dumps({"version": VERSION, "weights": weights, **asdict(found)}, indent=2) + "\n"
        )
    except OSError as error:
        notes(f"{path} cannot be written ({error.strerror}); the next report measures again")
    return found


@torch.no_grad()
def measure(best: BestNetwork) -> Speed:
    """Measures a network in every variant that this machine has."""
    threads, size = torch.get_num_threads(), best.image_size
    given = samples(best, CALIBRATED + COMPARED)
    images = (
        torch.randn(COMPARED, 3, size, size, generator=generator(0, "speed")) if given is None else given[0]
    )
    labels = None if given is None or not _is_run_data(best) else given[1]
    is_calibrated = torch.arange(len(images)) % 5 == 0  # the others are compared: no image is both
    variants = [
        Variant("torch fp32", load_run(best.folder).best_weights.stat().st_size, torch_outputs(best, CPU))
    ]
    missing, versions = "", {"cpu_flags": " ".join(cpu_flags()) or "unknown"}
    try:
        if absent := missing_packages():
            raise UserError(f"{', '.join(absent)} not installed; pip install 'neq[onnx]'")
        variants += onnx_variants(best, images[is_calibrated][:CALIBRATED], threads)
        import onnxruntime

        versions["onnxruntime"] = onnxruntime.__version__
    except UserError as error:
        missing = str(error)
    compared = images[~is_calibrated][:COMPARED]
    true = None if labels is None else labels[~is_calibrated][:COMPARED]
    predicted = [
        torch.cat([each.outputs(batch).argmax(1) for batch in compared.split(BATCHES[-1])])
        for each in variants
    ]
    times = [_times(variants, _batch(images, count)) for count in BATCHES]
    found = tuple(
        VariantSpeed(
            name=each.name,
            file_bytes=each.file_bytes,
            milliseconds=tuple(median(of_size[at]) for of_size in times),
            least=tuple(min(of_size[at]) for of_size in times),
            rounds=tuple(len(of_size[at]) for of_size in times),
            agreement=float((predicted[at] == predicted[0]).double().mean()),
            accuracy=None if true is None else float((predicted[at] == true).double().mean()),
        )
        for at, each in enumerate(variants)
    )
    chosen = best_int8(
        [each.name for each in found],
        [each.agreement for each in found],
        [each.milliseconds[0] for each in found],
    )
    environment = {**current_environment(CPU).to_json(), **versions}
    return Speed(found, chosen, len(compared), given is not None, environment, missing)


def _is_run_data(best: BestNetwork) -> bool:
    """Whether the run is evaluated on its own data set, not on a target domain."""
    from neq.tasks import Classification, task_class

    return issubclass(task_class(best.config.objective), Classification)


def _batch(images: Tensor, count: int) -> Tensor:
    """A batch of so many images, repeated where there are fewer."""
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count].contiguous()


def _times(variants: Sequence[Variant], batch: Tensor) -> list[list[float]]:
    """Milliseconds of each round of each variant, which take turns."""
    found: list[list[float]] = [[] for _ in variants]
    begin = time.perf_counter()
    for number in range(WARM_UPS + ROUNDS):
        is_over = time.perf_counter() - begin > SECONDS
        if is_over and len(found[0]) >= LEAST_ROUNDS:
            break
        for each, times in zip(variants, found, strict=True):
            start = time.perf_counter()
            each.outputs(batch)
            if number >= WARM_UPS or is_over:
                times.append(1000 * (time.perf_counter() - start))
    return found


def _read(path: Path, weights: str) -> Speed | None:
    """What a file holds; none where it is missing, damaged, of another version or of other weights."""
    if not path.is_file():
        return None
    try:
        values = read_object(path)
        if values.pop("version") != VERSION or values.pop("weights") != weights:
            return None
        lists = ("milliseconds", "least", "rounds")
        entries: list[dict[str, Any]] = [
            {key: tuple(value) if key in lists else value for key, value in each.items()}
            for each in values.pop("variants")
        ]
        variants = tuple(VariantSpeed(**each) for each in entries)
        found = Speed(variants, **values)
        return found if all(len(each.fps) == len(BATCHES) for each in variants) else None
    except (UserError, LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None
