"""Returning freed memory to the system at once, so that a CPU process takes little more than its tensors.

By default the GNU C library raises the size from which a block is mapped on its own (the mmap threshold), up
to 32 MiB. Feature maps of all sizes then share one heap, which fragments and hardly ever shrinks.
"""

from __future__ import annotations

import ctypes
import os

from neq.utils.errors import UserError

# Blocks from this size on are returned when they are freed; bytes. Smaller ones gain little.
_OWN_BLOCK = 256 * 2**10
_M_MMAP_THRESHOLD = -3  # of malloc.h


def give_back_at_once() -> None:
    """Returns every larger block of memory to the system as soon as it is freed, from here on.

    Steps take longer, since new memory is filled with zeros. Huge pages make up for a part of that, if this
    is called before torch is imported.

    Raises:
        UserError: the system's C library does not support it.

    Source: mallopt(3), M_MMAP_THRESHOLD; THP_MEM_ALLOC_ENABLE of torch (c10/core/alignment.h).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if not (can_give_back() and ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK)):
        raise UserError("memory 'tight' needs the GNU C library (most Linux systems); take --memory fast")


def can_give_back() -> bool:
    """Whether the C library supports it."""
    try:
        return hasattr(ctypes.CDLL(None), "mallopt")
    except (OSError, TypeError):
        return False
