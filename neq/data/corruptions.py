"""Corruptions of images by name and severity, as CIFAR-10-C defines them for 32 x 32 pixels.

Of its corruptions those that numpy, scipy and Pillow suffice for. Randomness depends on corruption, severity
and the number of the image alone, so any subset is the same as in the whole set.

Source: Hendrycks & Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019 (definitions and the constants of CIFAR-10-C, weaker than those for ImageNet).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from neq.data.sources import Source
from neq.utils.errors import unknown_name
from neq.utils.images import open_image
from neq.utils.seeds import seed_for

# x float64 [H, W, 3] in 0 .. 1, what the severity means, random numbers -> the same, not yet clipped.
Corrupt = Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]
_Image = np.ndarray


def corrupted(source: Source, corruption: str) -> Source:
    """A data set whose images are all corrupted.

    Args:
        source: the data set.
        corruption: NAME:SEVERITY, as `gaussian_noise:3`.

    Raises:
        UserError: there is no corruption of that name.
    """
    name, severity = read_corruption(corruption)
    if name not in CORRUPTIONS:
        raise unknown_name("corruption", name, CORRUPTIONS)
    image = partial(_corrupted, source.image, name, severity)
    return replace(source, image=image, variant=corruption)


def read_corruption(corruption: str) -> tuple[str, int]:
    """Name and severity of `gaussian_noise:3`, whose form the configuration checks."""
    name, _, severity = corruption.partition(":")
    return name, int(severity)


def corrupt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """An image under a corruption.

    Args:
        image: uint8 [H, W, 3].
        name: of CORRUPTIONS.
        severity: from 1 to 5.
        seed: of the random numbers.

    Returns:
        uint8 [H, W, 3], rounded down as in the published sets.
    """
    kind = CORRUPTIONS[name]
    changed = kind.function(image / 255, kind.severities[severity - 1], np.random.default_rng(seed))
    return (np.clip(changed, 0, 1) * 255 + 1e-6).astype(np.uint8)  # 99.999999999 is a 100


def _corrupted(read: Callable[[int], torch.Tensor], name: str, severity: int, index: int) -> torch.Tensor:
    """Image `index`, uint8 [3, H, W]."""
    image = read(index).permute(1, 2, 0).numpy()
    seed = seed_for(0, "corruption", name, severity, index)
    return torch.from_numpy(corrupt(image, name, severity, seed)).permute(2, 0, 1)


def _gaussian_noise(x: _Image, sd: float, random: np.random.Generator) -> _Image:
    return x + random.normal(0, sd, x.shape)


def _shot_noise(x: _Image, photons: float, random: np.random.Generator) -> _Image:
    return random.poisson(x * photons) / photons


def _impulse_noise(x: _Image, share: float, random: np.random.Generator) -> _Image:
    """A share of the values become 0 or 1."""
    return np.where(random.random(x.shape) < share, random.integers(0, 2, x.shape), x)


def _speckle_noise(x: _Image, sd: float, random: np.random.Generator) -> _Image:
    return x + x * random.normal(0, sd, x.shape)


def _gaussian_blur(x: _Image, sd: float, random: np.random.Generator) -> _Image:
    return ndimage.gaussian_filter(x, (sd, sd, 0), mode="nearest")


def _defocus_blur(x: _Image, lens: tuple[float, float], random: np.random.Generator) -> _Image:
    """Correlated with a disk of a radius, itself blurred by a 3 x 3 Gaussian."""
    radius, sd = lens
    at = np.arange(-2, 3)
    disk = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
    bell = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sd**2))
    soft = ndimage.convolve(disk / disk.sum(), np.outer(bell, bell) / bell.sum() ** 2, mode="constant")
    return ndimage.correlate(x, soft[..., None], mode="mirror")


def _zoom_blur(x: _Image, last: float, random: np.random.Generator) -> _Image:
    """The mean of the image and its centre enlarged by 1, 1.01, ..."""
    factors = np.arange(1, last, 0.01)
    total = x.copy()
    for factor in factors:
        total += _enlarged_centre(x, factor)
    return total / (len(factors) + 1)


def _enlarged_centre(x: _Image, factor: float) -> _Image:
    size = np.array(x.shape[:2])
    inner = np.ceil(size / factor).astype(int)
    top, left = (size - inner) // 2
    large = ndimage.zoom(x[top : top + inner[0], left : left + inner[1]], (factor, factor, 1), order=1)
    top, left = (np.array(large.shape[:2]) - size) // 2
    return large[top : top + size[0], left : left + size[1]]


def _fog(x: _Image, fog: tuple[float, float], random: np.random.Generator) -> _Image:
    strength, decay = fog
    height, width = x.shape[:2]
    clouds = _plasma(1 << (max(height, width) - 1).bit_length(), decay, random)[:height, :width, None]
    return (x + strength * clouds) * x.max() / (x.max() + strength)


def _plasma(side: int, decay: float, random: np.random.Generator) -> np.ndarray:
    """A plasma fractal in 0 .. 1 by the diamond-square algorithm on a torus, [side, side].

    Each level halves the grid: the new points are the mean of their four neighbours plus uniform noise, whose
    range shrinks by decay^2.

    Args:
        side: a power of 2.
        decay: of the noise.
        random: draws the noise.
    """
    height, noise = np.zeros((1, 1)), 1.0
    while len(height) < side:
        count = len(height)
        finer = np.zeros((2 * count, 2 * count))
        finer[::2, ::2] = height
        pairs = height + np.roll(height, -1, 0)
        centres = (pairs + np.roll(pairs, -1, 1)) / 4 + random.uniform(-noise, noise, height.shape)
        finer[1::2, 1::2] = centres
        for across, edge in ((0, finer[::2, 1::2]), (1, finer[1::2, ::2])):
            around = height + np.roll(height, -1, 1 - across) + centres + np.roll(centres, 1, across)
            edge[:] = around / 4 + random.uniform(-noise, noise, height.shape)
        height, noise = finer, noise / decay**2
    height -= height.min()
    return height / (height.max() or 1)


def _brightness(x: _Image, more: float, random: np.random.Generator) -> _Image:
    """A higher HSV value V = max(R, G, B): hue and saturation stay when all are scaled alike."""
    value = x.max(2, keepdims=True)
    brighter = np.minimum(value + more, 1)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


def _contrast(x: _Image, factor: float, random: np.random.Generator) -> _Image:
    mean = x.mean((0, 1))
    return (x - mean) * factor + mean


def _saturate(x: _Image, change: tuple[float, float], random: np.random.Generator) -> _Image:
    """HSV saturation S -> factor S + shift: V - x is proportional to S. Grey has the hue of red there."""
    factor, shift = change
    value = x.max(2, keepdims=True)
    below = value - x
    range_ = below.max(2, keepdims=True)
    saturation = range_ / np.where(value > 0, value, 1)
    direction = np.where(range_ > 0, below / np.where(range_ > 0, range_, 1), [0, 1, 1])
    return value - value * np.clip(saturation * factor + shift, 0, 1) * direction


def _pixelate(x: _Image, share: float, random: np.random.Generator) -> _Image:
    image = _as_image(x)
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    small = image.resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX)) / 255


def _jpeg_compression(x: _Image, quality: int, random: np.random.Generator) -> _Image:
    file = io.BytesIO()
    _as_image(x).save(file, "JPEG", quality=quality)
    with open_image(file) as image:
        return np.asarray(image) / 255


def _as_image(x: _Image) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))


@dataclass(frozen=True)
class Corruption:
    """A corruption.

    Args:
        function: corrupts an image.
        severities: its argument at severities 1 to 5.
    """

    function: Corrupt
    severities: tuple[Any, Any, Any, Any, Any]


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption(_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": Corruption(_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": Corruption(_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "defocus_blur": Corruption(_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "zoom_blur": Corruption(_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "fog": Corruption(_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": Corruption(_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": Corruption(_saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
    "pixelate": Corruption(_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption(_jpeg_compression, (80, 65, 58, 50, 40)),
}
