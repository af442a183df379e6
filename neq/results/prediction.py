"""The classes of photos by a run's best network, in the preprocessing and precision of its evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pandas import DataFrame
from PIL import Image as Pillow
from torch import Tensor

from neq.data.decoding import read_image, to_tensor, why_unreadable
from neq.data.image_folder import list_images
from neq.data.transforms import normalization
from neq.results.best_network import BestNetwork
from neq.training.forward import NetworkForward
from neq.utils.errors import UserError, printable, shown

# A file's path, an image of PIL, or uint8 values [H, W], [H, W, 3] of numpy, [3, H, W] of torch.
Image = str | os.PathLike[str] | Pillow.Image | np.ndarray | Tensor
# Normalized images [B, 3, S, S] -> logits [B, classes].
Outputs = Callable[[Tensor], Tensor]
TOP = 5


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Args:
        image: its path as given, else its number among those given, from 0.
        classes: their names, the most probable first.
        probabilities: of these classes, of 1.
        error: why the image cannot be read; it has no classes then.
    """

    image: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str = ""

    def __str__(self) -> str:
        """`photo.jpg: cat (97.3 %), dog (2.1 %)`."""
        named = zip(self.classes, self.probabilities, strict=True)
        found = ", ".join(f"{name} ({100 * share:.1f} %)" for name, share in named)
        return printable(f"{self.image}: {found or f'cannot be read ({self.error})'}")


def predict(
    best: BestNetwork, images: Image | Iterable[Image], top: int = TOP, outputs: Outputs | None = None
) -> Iterator[Prediction]:
    """The classes of images, in their order; one that cannot be read has its error.

    Args:
        best: the network.
        images: one, or several: paths, images of PIL, arrays or tensors, also a batch [B, 3, H, W].
        top: classes of each image.
        outputs: computes the network; none: torch on the CPU.

    Raises:
        UserError: values that are no image.
    """
    outputs = outputs or torch_outputs(best)
    numbered = enumerate(_several(images))
    size = best.config.data_provider.test_batch_size or best.config.data_provider.base_batch_size
    while some := list(islice(numbered, size)):
        read = [_read(number, image) for number, image in some]
        pixels = [each for _, each in read if isinstance(each, Tensor)]
        shares = iter(probabilities(best, pixels, outputs) if pixels else ())
        for name, each in read:
            yield _top(best, name, next(shares), top) if isinstance(each, Tensor) else each


def probabilities(best: BestNetwork, images: list[Tensor], outputs: Outputs) -> Tensor:
    """The probability of every class, float32 [B, classes].

    Args:
        best: the network.
        images: uint8 [3, H, W], of any sizes.
        outputs: computes the network.
    """
    resized = best.resizing()
    batch: Tensor = normalization(best.mean_std)(torch.stack([resized(image) for image in images]))
    return outputs(batch).float().cpu().softmax(1)


def torch_outputs(best: BestNetwork, device: torch.device | None = None) -> Outputs:
    """The network in torch, as the run evaluates it.

    Args:
        best: the network, which is moved.
        device: that computes; none: the CPU.
    """
    place = device or torch.device("cpu")
    network = best.network.to(place).to(memory_format=torch.channels_last)
    forward = NetworkForward(network, best.config.run_config.precision)

    @torch.no_grad()
    def outputs(images: Tensor) -> Tensor:
        return forward(images.to(place, memory_format=torch.channels_last))

    return outputs


def image_files(paths: Iterable[Path]) -> list[str]:
    """Files of images: those that are given, and all in the folders that are given, sorted.

    Raises:
        UserError: a path is neither, or a folder has no image.
    """
    found: list[str] = []
    for path in paths:
        if path.is_dir():
            inside, others, _ = list_images(path)
            if not inside:
                files = f"none of its {len(others)} files has the ending of one" if others else "it is empty"
                raise UserError(f"{path} has no image ({files}); give another folder, or files by name")
            found += inside
        elif path.is_file():
            found.append(str(path))
        else:
            raise UserError(f"{path} is neither an image file nor a folder; give one that exists")
    return found


def table(predictions: Iterable[Prediction]) -> DataFrame:
    """A row for each class of each image: image, rank (from 1), class, probability.

    Args:
        predictions: those with an error are left out.
    """
    rows = [
        (each.image, rank, name, share)
        for each in predictions
        for rank, (name, share) in enumerate(zip(each.classes, each.probabilities, strict=True), 1)
    ]
    return DataFrame(rows, columns=["image", "rank", "class", "probability"])


def _several(images: Image | Iterable[Image]) -> Iterable[Image]:
    if isinstance(images, str | os.PathLike | Pillow.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        return [images] if images.ndim < 4 else iter(images)
    return images


def _read(number: int, image: Image) -> tuple[str, Tensor | Prediction]:
    """The name of an image and its values, uint8 [3, H, W]; a Prediction with the error where it has none."""
    if not isinstance(image, str | os.PathLike):
        return str(number), _values(image)
    name = os.fspath(image)
    try:
        return name, read_image(os.path.expanduser(name))
    except UserError as error:
        reason = why_unreadable(os.path.expanduser(name)) or str(error)
        return name, Prediction(name, error=reason)


def _values(image: Any) -> Tensor:
    """Values as uint8 [3, H, W]."""
    if isinstance(image, Pillow.Image):
        return to_tensor(image)
    found = image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        found = torch.from_numpy(np.ascontiguousarray(image))
        found = found[None] if found.ndim == 2 else found.movedim(-1, 0)
    is_image = isinstance(found, Tensor) and found.dtype == torch.uint8 and found.ndim == 3
    if is_image and len(found) in (1, 3) and found.numel():
        return found.expand(3, -1, -1).cpu()
    kind = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray | Tensor) else shown(image)
    raise UserError(
        f"{kind} is no image; allowed: a path, an image of PIL, or uint8 values from 0 to 255: "
        "[H, W] or [H, W, 3] of numpy, [3, H, W] of torch"
    )


def _top(best: BestNetwork, name: str, shares: Tensor, top: int) -> Prediction:
    found = shares.topk(min(top, len(shares)))
    names = tuple(best.classes[number] for number in found.indices.tolist())
    return Prediction(name, names, tuple(found.values.tolist()))
