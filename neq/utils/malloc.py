"""A process that gives freed memory back at once, so that on a CPU it takes little more than its tensors do.

By itself the GNU C library raises the size from which a block of memory is one of its own, up to 32 MiB.
Feature maps of all sizes then share one heap, which is cut to pieces and hardly ever shrinks.
"""

from __future__ import annotations

import ctypes
import os

from neq.utils.errors import UserError

# Blocks from this size on are given back when they are freed; bytes. Below it, little is won.
_OWN_BLOCK = 256 * 2**10
_M_MMAP_THRESHOLD = -3  # of malloc.h


def give_back_at_once() -> None:
    """Lets this process give every larger block of memory back to the system as soon as it is freed.

    Steps take longer, since new memory is filled with zeros. Torch takes its blocks in huge pages then, which
    makes up for a part of it, if this is called before torch is imported.

    Raises:
        UserError: the system's C library cannot.

    Source: mallopt(3), M_MMAP_THRESHOLD; THP_MEM_ALLOC_ENABLE of torch (c10/core/alignment.h).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        done = ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK)
    except (AttributeError, OSError, TypeError):
        done = 0
    if not done:
        raise UserError("memory 'tight' needs the GNU C library (most Linux systems); take --memory fast")


def can_give_back() -> bool:
    """Whether the C library can."""
    try:
        return hasattr(ctypes.CDLL(None), "mallopt")
    except (OSError, TypeError):
        return False
