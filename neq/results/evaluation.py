"""One evaluation pass of a run's best network over its test split, kept beside the run.

The file evaluation.safetensors holds what the figures of a report are computed from. It is made where it is
missing, of another version or of other weights, and replaced whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import interpolate

from neq.config import Config, DataProvider, data_title, dataset
from neq.data import Data, open_data
from neq.networks.heads import HeadInputs
from neq.networks.safetensors_file import checked_bytes, load_checked
from neq.results.best_network import BestNetwork, load_best
from neq.runs import fingerprint, load_run
from neq.runs.identity import FINGERPRINT
from neq.runs.layout import CONFIG, EVALUATION, IDENTITY
from neq.runs.stored_run import read_object
from neq.tasks import Task, TaskInputs, task_class
from neq.training.forward import NetworkForward
from neq.utils.atomic_files import atomic_file, file_sha256
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode

VERSION = "1"
# The features of so many images are kept, spread over the split.
FEATURES = 5000
# The photos that are kept: of wrong predictions, those with the highest probabilities; pixels a side.
WRONG, SIDE = 12, 112


@dataclass(frozen=True)
class Evaluation:
    """What a network put out for the N images of a test split.

    Args:
        classes: their names, C.
        names: of the images: their files, or `image N` where they are in memory.
        logits: float32 [N, C].
        labels: int64 [N].
        features: what the classifier head was given, float32 [M, F]; M is 0 where it could not be seen.
        featured: which images they are of, int64 [M].
        wrong: images that were predicted wrong with the highest probabilities, the highest first, int64 [K].
        photos: of these, as the network saw them, uint8 [K, 3, S, S].
        steps: training steps of an epoch of the run.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    logits: Tensor
    labels: Tensor
    features: Tensor
    featured: Tensor
    wrong: Tensor
    photos: Tensor
    steps: int

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the outputs, float32 [N, C]."""
        return self.logits.softmax(1)

    @property
    def predicted(self) -> Tensor:
        """The class with the highest output, int64 [N]."""
        return self.logits.argmax(1)


def evaluation(
    folder: Path, device: torch.device, notes: Callable[[str], object] = lambda line: None
) -> Evaluation:
    """The evaluation of a run's best network: the one that is kept beside it, else made and kept.

    Args:
        folder: of the run, or of a copy of its network.
        device: that computes.
        notes: called with a line where a pass is made, and where its file cannot be written.

    Raises:
        UserError: the run has no network yet, or its images are missing, damaged or others.
    """
    # Of the network, and of what its images go through.
    weights = f"{file_sha256(load_run(folder).best_weights)} {file_sha256(folder / CONFIG)}"
    kept = _read(folder / EVALUATION, weights)
    if kept is not None:
        return kept
    best = load_best(folder)
    settings = best.config.data_provider
    notes(f"{folder}: evaluating the test split of {data_title(settings.dataset, settings.root)}")
    found = evaluate(best, device)
    try:
        _write(folder / EVALUATION, found, weights)
    except OSError as error:
        notes(f"{folder / EVALUATION} cannot be written ({error.strerror}); the next report evaluates again")
    return found


def evaluate(best: BestNetwork, device: torch.device) -> Evaluation:
    """Passes the test split through a network once, as the run evaluated it.

    Norms use their running statistics, also of an objective that evaluates on those of batches.

    Args:
        best: the network, which is moved.
        device: that computes.

    Raises:
        UserError: the images are missing, damaged or others, or have no labels.
    """
    config = best.config
    network = best.network.to(device).to(memory_format=torch.channels_last)
    settings = config.data_provider
    with ExitStack() as closed:
        opening = open_data(settings, dataset(settings.dataset), config.manual_seed, device)
        data = closed.enter_context(opening)
        task = closed.enter_context(opened_task(config, data, network, known_images(best.folder)))
        found = task.tested()
        if found is None:
            raise UserError(f"objective {config.objective} has no labelled images to evaluate")
        tested, batches = found
        if len(data.classes) != len(best.classes):
            raise UserError(f"{best.folder} has {len(best.classes)} classes, its data {len(data.classes)}")
        return _pass(best, network, tested.names("test"), batches, task.steps_per_epoch)


def known_images(folder: Path) -> object:
    """The fingerprint of the images that a run was trained on; none where its folder does not hold it."""
    path = folder / IDENTITY
    return read_object(path).get(FINGERPRINT) if path.exists() else None


@contextmanager
def opened_task(config: Config, data: Data, network: nn.Module, known: object = None) -> Iterator[Task[Any]]:
    """The task of a run's configuration, with the further data sets that it opens.

    Args:
        config: of the run.
        data: of the run.
        network: on the device that computes.
        known: fingerprint of the run's images; none: they are not compared.

    Raises:
        UserError: these are other images.
    """
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    with ExitStack() as closed:
        sets = [data]

        def open_set(settings: DataProvider) -> Data:
            opening = open_data(settings, dataset(settings.dataset), config.manual_seed, device)
            sets.append(closed.enter_context(opening))
            return sets[-1]

        task = task_class(config.objective).of_run(TaskInputs(config, data, device, network, open_set))
        if known is not None and fingerprint([each.fingerprint for each in sets]) != known:
            raise UserError("these are not the images it was trained on")
        yield task


@torch.no_grad()
def _pass(
    best: BestNetwork,
    network: nn.Module,
    names: tuple[str, ...],
    batches: Iterator[tuple[Tensor, ...]],
    steps: int,
) -> Evaluation:
    forward = NetworkForward(network, best.config.run_config.precision)
    step, seen = -(-len(names) // FEATURES), 0
    parts: dict[str, list[Tensor]] = {name: [] for name in ("logits", "labels", "features", "featured")}
    wrong: list[tuple[float, int, Tensor]] = []
    with HeadInputs(network.get_submodule(best.head)) as kept, eval_mode(network):
        for images, labels in batches:
            kept.found.clear()
            logits = forward(images).float()
            numbers = torch.arange(seen, seen + len(labels))
            seen += len(labels)
            parts["logits"].append(logits.cpu())
            parts["labels"].append(labels.cpu())
            if len(kept.found) == 1 and len(kept.found[0]) == len(labels):
                parts["features"].append(kept.found[0][numbers % step == 0].float().cpu())
                parts["featured"].append(numbers[numbers % step == 0])
            shares, predicted = logits.softmax(1).max(1)
            for at in (predicted != labels).nonzero().flatten().tolist():
                wrong.append((float(shares[at]), int(numbers[at]), images[at].clone()))
            wrong = sorted(wrong, key=lambda each: -each[0])[:WRONG]
    joined = {name: torch.cat(found) if found else torch.empty(0) for name, found in parts.items()}
    joined["featured"] = joined["featured"].long()
    photos = [_photo(image, best) for _, _, image in wrong]
    return Evaluation(
        classes=best.classes,
        names=names,
        **joined,
        wrong=torch.tensor([number for _, number, _ in wrong], dtype=torch.int64),
        photos=torch.stack(photos) if photos else torch.empty(0, 3, SIDE, SIDE, dtype=torch.uint8),
        steps=steps,
    )


def _photo(image: Tensor, best: BestNetwork) -> Tensor:
    """A normalized image [3, S, S] as a small uint8 one."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (best.mean_std.mean, best.mean_std.std))
    pixels = (image.float().cpu() * std + mean)[None]
    small = interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=pixels.shape[-1] > SIDE)
    return (small[0] * 255).round().clamp(0, 255).to(torch.uint8)


_TENSORS = ("logits", "labels", "features", "featured", "wrong", "photos")


def _write(path: Path, found: Evaluation, weights: str) -> None:
    tensors = {name: getattr(found, name).contiguous() for name in _TENSORS}
    texts = {name: json.dumps(getattr(found, name)) for name in ("classes", "names", "steps")}
    content = checked_bytes(tensors, version=VERSION, weights=weights, **texts)
    with atomic_file(path) as file:
        file.write(content)


def _read(path: Path, weights: str) -> Evaluation | None:
    """What a file holds; none where it is missing, damaged, of another version or of other weights."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
        if texts.get("version") != VERSION or texts.get("weights") != weights:
            return None
        tensors = load_checked(path)
        classes, names = (tuple(json.loads(texts[name])) for name in ("classes", "names"))
        steps = int(json.loads(texts["steps"]))
        return Evaluation(classes, names, **{name: tensors[name] for name in _TENSORS}, steps=steps)
    except (OSError, SafetensorError, LookupError, ValueError, RecursionError):
        return None
