"""How the maps of images are kept: as they are, or rounded to fewer bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Type that values are kept in; None: their own, or for int8 codes with a scale for each channel of an image.
_KEPT: dict[str, torch.dtype | None] = {
    "exact": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
MAP_PRECISIONS = tuple(_KEPT)


@dataclass(frozen=True)
class MapFormat:
    """The shape of an image's map, and how it is kept: one row of bytes an image.

    Args:
        shape: of one map, without the batch.
        strides: of its axes in memory, in values; a batch is as many maps one after another.
        dtype: of the maps.
        precision: "exact", "fp16", "bf16", or "int8": c = round(x / s) with s = max |x| / 127, for each image
            and channel (its first axis).
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    precision: str = "exact"

    @classmethod
    def of(cls, maps: Tensor, precision: str) -> Self | None:
        """The format of maps [B, ...]; None where they do not lie one after another without gaps."""
        shape, strides = tuple(maps.shape[1:]), maps.stride()[1:]
        values = math.prod(shape)
        last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if not shape or not values or last != values - 1 or (len(maps) > 1 and maps.stride(0) != values):
            return None
        return cls(shape, strides, maps.dtype, precision if maps.is_floating_point() else "exact")

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        values = math.prod(self.shape)
        if self.precision == "int8":
            return values + 4 * self.shape[0]
        return values * (_KEPT[self.precision] or self.dtype).itemsize

    def rows(self, maps: Tensor) -> Tensor:
        """Maps [B, ...] as rows, uint8 [B, row_bytes], on the CPU and of their own."""
        assert MapFormat.of(maps, self.precision) == self, "maps of another format"
        kept = _KEPT[self.precision]
        if self.precision != "int8":
            return _bytes(maps if kept is None else maps.to(kept))
        flat = maps.float().reshape(*maps.shape[:2], -1)
        scales = flat.abs().amax(2).div_(127).clamp_(min=torch.finfo(torch.float32).tiny)
        codes = maps.float() / scales.view(*scales.shape, *(1,) * (maps.dim() - 2))
        return torch.cat([_bytes(codes.round_().to(torch.int8)), _bytes(scales)], 1)

    def maps(self, rows: Tensor) -> Tensor:
        """The maps [B, ...] of rows [B, row_bytes], in the layout and the type that they had."""
        kept, values = _KEPT[self.precision], math.prod(self.shape)
        if self.precision != "int8":
            return self._laid_out(rows.contiguous().view(kept or self.dtype)).to(self.dtype)
        codes = self._laid_out(rows[:, :values].contiguous().view(torch.int8))
        scales = rows[:, values:].contiguous().view(torch.float32)
        return (codes * scales.view(*scales.shape, *(1,) * (codes.dim() - 2))).to(self.dtype)

    def _laid_out(self, flat: Tensor) -> Tensor:
        """Values [B, n] in the order of memory, as maps."""
        return flat.as_strided((len(flat), *self.shape), (flat.shape[1], *self.strides))


def _bytes(values: Tensor) -> Tensor:
    """Values [B, ...] without gaps, in the order of memory: uint8 [B, bytes], a copy on the CPU."""
    count = math.prod(values.shape[1:])
    flat = values.detach().as_strided((len(values), count), (count, 1))
    return flat.to("cpu", copy=True).view(torch.uint8)
