"""Transforms from a decoded image to the network's input.

Augmentation is a property of the data set: `photo` (random-resized crop, flip, colour jitter), `square`
(plain resize and flip) or `none` (plain resize, nothing random). Images stay uint8 until they are a
batch: normalizing it as a whole gives the same bits in less time.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from neq.config.schema import Augmentation, DataProvider, MeanStd

# The share of the resized image's side that evaluation keeps: 224 of 256.
_CROP_SHARE = 0.875
# Longer side / shorter side from which an image is not resized as a whole.
_ELONGATED = 8


def train_transform(settings: DataProvider, image_size: int, augmentation: Augmentation) -> v2.Transform:
    """The transform of training images; its randomness comes from torch's global CPU generator.

    Args:
        settings: `resize_scale` and `color_aug` are read for photos; a `color_aug` of 0 keeps the colours.
        image_size: S, in pixels.
        augmentation: of the data set.

    Returns:
        uint8 [3, H, W] -> uint8 [3, S, S].
    """
    if augmentation == "none":
        return eval_transform(image_size, augmentation)
    if augmentation == "square":
        return v2.Compose([_resize([image_size, image_size]), v2.RandomHorizontalFlip()])
    scale = (settings.resize_scale, 1.0)
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(image_size, scale, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
    ]
    if settings.color_aug > 0:
        strength = settings.color_aug
        steps.append(v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength))
    return v2.Compose(steps)


def eval_transform(image_size: int, augmentation: Augmentation) -> v2.Transform:
    """The deterministic transform of evaluation images.

    Args:
        image_size: S, in pixels.
        augmentation: of the data set; photos are resized slightly larger and cropped at the centre, all
            others are resized to the square.

    Returns:
        uint8 [3, H, W] -> uint8 [3, S, S].
    """
    if augmentation == "photo":
        return _ResizedCentre(image_size)
    return _resize([image_size, image_size])


def normalization(mean_std: MeanStd) -> v2.Transform:
    """The last step: uint8 [B, 3, S, S] -> float32 [B, 3, S, S], on the device of the batch.

    Args:
        mean_std: for values in 0 .. 1.
    """
    scaled = v2.ToDtype(torch.float32, scale=True)
    # In place: writing a second batch of floats would take longer than the arithmetic.
    return v2.Compose([scaled, v2.Normalize(list(mean_std.mean), list(mean_std.std), inplace=True)])


class _ResizedCentre(v2.Transform):
    """The shorter side resized to R = ceil(S / .875), then the S x S pixels at the centre.

    An elongated image would take R x R x longer / shorter side pixels in between. Of one, only the centre is
    computed: by PIL, whose bicubic was within two levels (of 255) of torchvision's on 300 images.

    Args:
        size: S, in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._resized = ceil(size / _CROP_SHARE)
        self._whole = v2.Compose([_resize([self._resized]), v2.CenterCrop(size)])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [3, H, W] -> uint8 [3, S, S]."""
        height, width = image.shape[1:]
        shorter = min(height, width)
        if max(height, width) <= _ELONGATED * shorter:
            whole: torch.Tensor = self._whole(image)
            return whole
        left, right = self._kept(width, shorter)
        top, bottom = self._kept(height, shorter)
        centre = Image.fromarray(image.permute(1, 2, 0).numpy())
        # Rows first, as in torchvision: pixels are clipped in between. PIL itself chooses the cheaper order.
        centre = centre.resize((self._size, height), Image.Resampling.BICUBIC, (left, 0, right, height))
        centre = centre.resize(
            (self._size, self._size), Image.Resampling.BICUBIC, (0, top, self._size, bottom)
        )
        return torch.from_numpy(np.array(centre)).permute(2, 0, 1)

    def _kept(self, side: int, shorter: int) -> tuple[float, float]:
        """Where the kept pixels of a side begin and end in the image, with torchvision's rounding."""
        resized = self._resized * side // shorter
        start = round((resized - self._size) / 2)
        return start * side / resized, (start + self._size) * side / resized


def _resize(size: list[int]) -> v2.Transform:
    """To [height, width], or to [shorter side]."""
    return v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
