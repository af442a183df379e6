"""Downloading weights once, loading them without executing code, and the error where they are unavailable."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import torch

from neq.utils.atomic_files import atomic_file, file_sha256
from neq.utils.errors import UserError, first_line

SECONDS_TO_ANSWER = 10
SWITCH = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def tensors_alone() -> Iterator[None]:
    """Context in which torch.load reads tensors and plain values only, also where a library calls it.

    torchvision's call would unpickle any file in the cache, and the cache is where users put files that
    cannot be downloaded.
    """
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def cached_file(name: str) -> Path:
    """The place of a file of weights in torch's cache."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def download_once(url: str, file: Path, sha256: str | None = None) -> None:
    """Downloads a file that is not there yet; it is whole or absent.

    Args:
        url: of the file.
        file: where it is kept.
        sha256: its published checksum, of a file that was there before too; None: not known.

    Raises:
        OSError: the download fails.
        ValueError: the checksum is another one.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(url, timeout=SECONDS_TO_ANSWER) as response:
            content: bytes = response.read()
        if sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("what arrives is another file")
        with atomic_file(file) as target:
            target.write(content)
    elif sha256 not in (None, file_sha256(file)):
        raise ValueError("its checksum is wrong")


def not_loaded(net_name: str, library: str, url: str, file: Path, error: Exception) -> UserError:
    """The error for weights that could not be loaded, in one line.

    Args:
        net_name: the network's name as the user gave it.
        library: that provides the weights.
        url: that they are downloaded from.
        file: that is read first.
        error: the failure.
    """
    reason = first_line(error)
    if isinstance(error, pickle.UnpicklingError):  # whose text suggests executing it
        reason = "it is damaged, or holds more than tensors; nothing in it was executed"
    needs = f"net_name {net_name!r} needs {library}'s weights"
    if file.exists() and not isinstance(error, URLError):
        return UserError(
            f"{needs}, but {file} cannot be read ({reason}); remove it, and it is downloaded again"
        )
    return UserError(
        f"{needs}, which could not be loaded from {url} ({reason}); put that file at {file}, "
        "give weights FILE, or weights none for a random start"
    )
