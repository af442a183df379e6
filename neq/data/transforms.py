"""From a decoded image to the network's input.

Augmentation is a property of the data set: `photo` (random-resized crop, flip, colour jitter), `square`
(plain resize, flip, colour jitter) or `none` (plain resize, nothing random).
"""

from __future__ import annotations

from math import ceil

import torch
from torchvision.transforms import v2

from neq.config.schema import DataProvider, MeanStd

# The share of the resized image's side that evaluation keeps: 224 of 256.
_CROP_SHARE = 0.875
AUGMENTATIONS = ("photo", "square", "none")


def train_transform(
    settings: DataProvider, image_size: int, augmentation: str, mean_std: MeanStd
) -> v2.Transform:
    """The transform of training images; its randomness comes from torch's global CPU generator.

    Args:
        settings: `resize_scale` and `color_aug` are read; a `color_aug` of 0 leaves colours alone.
        image_size: pixels a side, S.
        augmentation: one of `AUGMENTATIONS`.
        mean_std: normalization, for values in 0 .. 1.

    Returns:
        uint8 [3, H, W] -> float32 [3, S, S].
    """
    assert augmentation in AUGMENTATIONS, augmentation
    if augmentation == "none":
        return eval_transform(image_size, augmentation, mean_std)
    steps: list[v2.Transform] = []
    if augmentation == "photo":
        scale = (settings.resize_scale, 1.0)
        steps.append(v2.RandomResizedCrop(image_size, scale, interpolation=v2.InterpolationMode.BICUBIC))
    else:
        steps.append(_resize([image_size, image_size]))
    steps.append(v2.RandomHorizontalFlip())
    if settings.color_aug > 0:
        strength = settings.color_aug
        steps.append(v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength))
    return v2.Compose([*steps, *_normalize(mean_std)])


def eval_transform(image_size: int, augmentation: str, mean_std: MeanStd) -> v2.Transform:
    """The transform of evaluated images, nothing random in it.

    Args:
        image_size: pixels a side, S.
        augmentation: one of `AUGMENTATIONS`; photos are resized a little larger and cropped to their
            centre, all others are resized to the square.
        mean_std: normalization, for values in 0 .. 1.

    Returns:
        uint8 [3, H, W] -> float32 [3, S, S].
    """
    assert augmentation in AUGMENTATIONS, augmentation
    if augmentation == "photo":
        steps = [_resize([ceil(image_size / _CROP_SHARE)]), v2.CenterCrop(image_size)]
    else:
        steps = [_resize([image_size, image_size])]
    return v2.Compose([*steps, *_normalize(mean_std)])


def _resize(size: list[int]) -> v2.Transform:
    """To [height, width], or to [shorter side]."""
    return v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)


def _normalize(mean_std: MeanStd) -> list[v2.Transform]:
    return [
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean_std.mean), list(mean_std.std)),
    ]
