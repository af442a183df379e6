"""Masks of one bit an element, packed and unpacked with plain tensor operations.

Eight truth values are eight bytes of 0 or 1, that is one int64. A multiplication moves their low bits side by
side into the top byte; a table of 256 entries moves them back. On a CPU it is done piece by piece, so that
intermediate values stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from neq.backward.output_channels import layout_of

# In the product's top byte stand the low bits of all eight bytes.
_GATHER = 0x0102040810204080
# Elements of a piece; a multiple of 8.
_PIECE = 2**17


def pack_where(condition: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Where a condition holds, one bit an element in the order of memory, uint8 [ceil(n / 8)].

    Args:
        condition: elementwise, bool of any piece of x.
        x: any shape.
    """
    flat = _in_memory_order(x, layout_of(x))
    bits = torch.empty((len(flat) + 7) // 8, dtype=torch.uint8, device=x.device)
    for start, stop in _pieces(flat):
        bits[start // 8 : (stop + 7) // 8] = _pack(condition(flat[start:stop]))
    return bits


def times_mask(x: Tensor, bits: Tensor, layout: torch.memory_format) -> Tensor:
    """x where a bit is set and 0 elsewhere.

    Args:
        x: of the shape that the mask was packed from.
        bits: what `pack_where` returned.
        layout: of what it was packed from.
    """
    x = x.contiguous(memory_format=layout) if x.dim() == 4 else x.contiguous()
    out = torch.empty_like(x)
    given, made = _in_memory_order(x, layout), _in_memory_order(out, layout)
    table = _table(x.device)
    for start, stop in _pieces(given):
        piece = table.index_select(0, bits[start // 8 : (stop + 7) // 8].int()).view(torch.bool)
        torch.mul(given[start:stop], piece[: stop - start], out=made[start:stop])
    return out


def _pack(mask: Tensor) -> Tensor:
    if len(mask) % 8:
        mask = F.pad(mask, (0, 8 - len(mask) % 8))
    return ((mask.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def _in_memory_order(x: Tensor, layout: torch.memory_format) -> Tensor:
    return (x.permute(0, 2, 3, 1) if layout is torch.channels_last else x).reshape(-1)


def _pieces(flat: Tensor) -> Iterator[tuple[int, int]]:
    size = _PIECE if flat.device.type == "cpu" else max(1, len(flat))
    end = min(size, len(flat)) if isinstance(flat, FakeTensor) else len(flat)  # one shows what all need
    for start in range(0, end, size):
        yield start, min(start + size, len(flat))


@cache
def _table(device: torch.device) -> Tensor:
    """For every byte the eight truth values that it was packed from, as int64 [256]."""
    with unset_fake_temporarily():  # the first call may be one without values
        values = torch.arange(256 * 8, dtype=torch.int64).view(256, 8)
        number, place = values // 8, values % 8
        spread = (number >> (place if _packs_upwards() else 7 - place)) & 1
        return spread.to(torch.uint8).view(torch.int64).flatten().to(device)


def _packs_upwards() -> bool:
    """Whether the first of eight values becomes the lowest bit, as on little-endian machines."""
    first = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0], dtype=torch.uint8)
    return int(((first.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)) == 1
