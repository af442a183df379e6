"""Rescaling of integer results to codes, with rounding half to even, the clamp and its gate.

Between the layers of an int8 network flow centred codes, q - zero, as float32, which holds them exactly.
So padding is 0, and zero points matter in the limits of the clamp alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from neq.backward.bitmask import pack_where
from neq.int8.description import HIGHEST, LOWEST, Quantization

# Values that are rescaled at once on a CPU, so that their float64 copies stay in the cache: as fast as all of
# it in float32, which rounds otherwise near ties.
_PIECE = 2**16


def limits(quantization: Quantization) -> tuple[int, int]:
    """The lowest and the highest centred code."""
    return LOWEST - quantization.zero, HIGHEST - quantization.zero


def rescale_(
    out: Tensor, real: Callable[[slice], Tensor], quantization: Quantization, gated: bool
) -> Tensor | None:
    """Writes y = round(r) over a tensor, rounded half to even and clamped to the range of codes.

    Args:
        out: float32 [B, C, H, W]; receives centred codes.
        real: r of some images, a new float64 tensor.
        quantization: of the result.
        gated: whether a gradient will pass.

    Returns:
        The gate where y was in range, one bit an element; None where it is not needed.
    """
    low, high = limits(quantization)
    for piece in _pieces(out):
        out[piece] = real(piece).round_().clamp_(low - 1, high + 1)
    bits = pack_where(lambda y: (y >= low) & (y <= high), out) if gated else None
    out.clamp_(low, high)
    return bits


def _pieces(x: Tensor) -> Iterator[slice]:
    """Slices of a batch that are rescaled one by one."""
    count = len(x)
    if count and x.device.type == "cpu" and not isinstance(x, FakeTensor):
        count = max(1, _PIECE * len(x) // max(1, x.numel()))
    for start in range(0, len(x), max(1, count)):
        yield slice(start, start + count)
