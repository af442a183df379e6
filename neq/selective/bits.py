"""Masks of one bit an element, packed and unpacked with plain tensor operations.

Eight truth values are eight bytes of 0 or 1, that is one int64. A multiplication moves their low bits side by
side into the top byte; a table of 256 entries moves them back.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from neq.selective.rows import layout_of

# In the product's top byte stand the low bits of all eight bytes.
_GATHER = 0x0102040810204080


def pack(mask: Tensor) -> Tensor:
    """The bits of a mask [B, C, H, W] in the order of its memory, uint8 [ceil(n / 8)]."""
    flat = (mask.permute(0, 2, 3, 1) if layout_of(mask) is torch.channels_last else mask).reshape(-1)
    if len(flat) % 8:
        flat = F.pad(flat, (0, 8 - len(flat) % 8))
    return ((flat.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def unpack(bits: Tensor, shape: torch.Size, layout: torch.memory_format) -> Tensor:
    """The mask again.

    Args:
        bits: what `pack` gave.
        shape: of the mask, (B, C, H, W).
        layout: of the mask.
    """
    flat = _table(bits.device).index_select(0, bits.int()).view(torch.bool)[: shape.numel()]
    if layout is not torch.channels_last:
        return flat.view(shape)
    batch, channels, height, width = shape
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


@cache
def _table(device: torch.device) -> Tensor:
    """For every byte the eight truth values that it was packed from, as int64 [256]."""
    values = torch.arange(256 * 8, dtype=torch.int64).view(256, 8)
    number, place = values // 8, values % 8
    spread = (number >> (place if _packs_upwards() else 7 - place)) & 1
    return spread.to(torch.uint8).view(torch.int64).flatten().to(device)


def _packs_upwards() -> bool:
    """Whether the first of eight values becomes the lowest bit: it follows the order of bytes in memory."""
    first = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0], dtype=torch.uint8)
    return int(((first.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)) == 1
