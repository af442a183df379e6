"""Random streams: one integer seed of a run becomes many independent ones.

Data order, augmentation, splits, head initialization, selection and dropout each draw from a stream of
their own, so that two policies at one seed see the same batches, and a resumed run needs no saved state
for a stream whose numbers (epoch, image) are known.
"""

from __future__ import annotations

import hashlib

import torch


def seed_for(seed: int, *stream: str | int) -> int:
    """The seed of one stream, the same on every machine and in every process.

    Args:
        seed: the run's seed (`manual_seed`), any integer.
        stream: the stream's name and numbers, as `"augmentation", epoch, image`.

    Returns:
        An integer in 0 .. 2**63 - 1. (Torch's CPU generator uses the low 32 bits of it.)
    """
    parts = (int(seed), *(part if isinstance(part, str) else int(part) for part in stream))
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *stream: str | int) -> torch.Generator:
    """A CPU generator at the start of one stream.

    Args:
        seed: the run's seed.
        stream: the stream's name and numbers.
    """
    return torch.Generator().manual_seed(seed_for(seed, *stream))
