"""Opens what is run on two devices: a split network, the network of a run, or one by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn

from neq.config import MeanStd, dataset
from neq.config.libraries import IMAGENET
from neq.data.decoding import read_image, why_unreadable
from neq.data.transforms import eval_transform, normalization
from neq.networks.build import build_network
from neq.partition.costs import CLASSES
from neq.partition.deploy import (
    MANIFEST,
    DevicePart,
    Images,
    Manifest,
    check_splits,
    load_part,
    part_of,
    split,
)
from neq.partition.networks import BranchedNetwork
from neq.partition.run import Leader
from neq.results.best_network import load_best, network_folder
from neq.results.prediction import Prediction
from neq.utils.errors import UserError


def open_network(name: str, image_size: int | None = None) -> tuple[BranchedNetwork, tuple[str, ...], Images]:
    """A branched network, its classes, and what its images go through.

    Args:
        name: a run's folder; or a published network's name or a model's file, with random weights.
        image_size: None: that of the run, or of the model.

    Raises:
        UserError: there is none, it has one branch, or it was changed since it was built.
    """
    folder = network_folder(Path(name).expanduser())
    if folder.is_dir():
        best = load_best(folder)
        settings = best.config.data_provider
        augmentation = settings.augmentation or dataset(settings.dataset).augmentation
        images = Images(image_size or best.image_size, best.mean_std, augmentation)
        return check_splits(best.network, name, len(best.classes)), best.classes, images
    built: nn.Module = build_network(f"branched:{name.removeprefix('branched:')}", CLASSES)
    network = check_splits(built, name, CLASSES)
    mean_std = MeanStd(mean=IMAGENET[0], std=IMAGENET[1])
    images = Images(image_size or network.model.image_size, mean_std, "photo")
    return network, tuple(map(str, range(CLASSES))), images


def open_part(name: str, rank: int) -> tuple[Manifest, DevicePart]:
    """The part of one device.

    Args:
        name: the folder of a split network, of which only the device's file is read; or a network as of
            `open_network`, which is split in memory.
        rank: of the device.

    Raises:
        UserError: there is none, or a file is damaged.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / MANIFEST).is_file():
            raise UserError(f"{folder} has no {MANIFEST}; make it with neq partition split --output")
        return load_part(folder, rank)
    manifest, contents = split(*open_network(name))
    return manifest, part_of(manifest, contents[rank], rank)


def predictions(
    files: Iterable[str], manifest: Manifest, leader: Leader, top: int, repeats: int = 1
) -> Iterator[Prediction]:
    """The classes of images, in their order; one that cannot be read has its error.

    Args:
        files: of images.
        manifest: of the network.
        leader: device 0.
        top: classes of each image.
        repeats: runs of each image.

    Raises:
        PeerLost: device 1 has ended, or is late.
    """
    resizing = eval_transform(manifest.images.size, manifest.images.augmentation)
    normalize = normalization(manifest.images.mean_std)
    for name in files:
        try:
            pixels = read_image(name)
        except UserError as error:
            yield Prediction(name, error=why_unreadable(name) or str(error))
            continue
        image = normalize(resizing(pixels)[None])
        for _ in range(repeats):
            logits = leader.run(image)
        shares = logits[0].softmax(0).topk(min(top, logits.shape[1]))
        names = tuple(manifest.classes[number] for number in shares.indices.tolist())
        yield Prediction(name, names, tuple(shares.values.tolist()))
