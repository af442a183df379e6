"""Scales and zero points of activations, from the values that they have on some images.

Three ways of choosing the range of a result: from its least to its largest value (min-max), without the most
extreme values on either side (percentile), or such that rounding and clamping cost least (MSE).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from neq.int8.description import CODES, HIGHEST, LOWEST, Quantization
from neq.int8.float_network import FloatNetwork
from neq.utils.seeds import generator

Range = tuple[float, float]
# Share of the values beyond either end of a percentile's range.
_BEYOND = 1e-4
# Ranges that MSE compares, as shares of the whole.
_SHARES = [share / 100 for share in range(20, 101, 2)]
# Values of one result, drawn over all images, that ranges are chosen by.
_VALUES = 2**16


def observe(network: FloatNetwork, images: Tensor, batch_size: int = 16) -> dict[str, Tensor]:
    """Values of each operation's result on some images, the least and the largest among them, by name.

    Args:
        network: whose results are observed.
        images: normalized, [N, 3, S, S].
        batch_size: images that are computed at once.
    """
    random, found = generator(0, "calibration"), dict[str, list[Tensor]]()
    count = max(1, _VALUES // len(images))

    def seen(name: str, out: Tensor) -> None:
        values = out.flatten()
        drawn = torch.randint(len(values), (count * len(out),), generator=random)
        found.setdefault(name, []).extend((values[drawn], torch.stack(values.aminmax())))

    for batch in images.split(batch_size):
        network.run(batch, seen)
    return {name: torch.cat(values) for name, values in found.items()}


def min_max(values: Tensor) -> Range:
    """From the least to the largest value."""
    low, high = values.aminmax()
    return float(low), float(high)


def percentile(values: Tensor) -> Range:
    """Without the share 1e-4 of the values at either end."""
    low, high = values.quantile(torch.tensor([_BEYOND, 1 - _BEYOND]))
    return float(low), float(high)


def least_squares(values: Tensor) -> Range:
    """The part of the range whose codes differ least from the values, by their mean squared error."""
    low, high = min_max(values)
    ranges = [(low * share, high * share) for share in _SHARES]
    return min(ranges, key=lambda each: _squared_error(values, quantization(*each)))


METHODS: Mapping[str, Callable[[Tensor], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": least_squares,
}


def quantization(low: float, high: float) -> Quantization:
    """The scale and the zero point whose codes cover a range, which is widened to hold 0.

        scale = (high - low) / 255        zero = round(-128 - low / scale)

    A range of 0 alone, of a result that is always 0, becomes 0 .. 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < torch.finfo(torch.float32).tiny:
        low, high = 0.0, 1.0
    scale = (high - low) / (CODES - 1)
    return Quantization(scale, min(max(round(LOWEST - low / scale), LOWEST), HIGHEST))


def _squared_error(values: Tensor, quantized: Quantization) -> float:
    codes = (values / quantized.scale).round_().add_(quantized.zero).clamp_(LOWEST, HIGHEST)
    return float((codes.sub_(quantized.zero).mul_(quantized.scale) - values).square().mean())
