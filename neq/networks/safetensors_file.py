"""Files of weights in safetensors, with a checksum of their content in the metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

_KEY = "neq_sha256"


def checked_bytes(tensors: Mapping[str, Tensor], **more: str) -> bytes:
    """The content of a file that holds some tensors, on the CPU and contiguous, and their checksum.

    Args:
        tensors: by name.
        more: further metadata, which the checksum covers too.
    """
    content = safetensors.torch.save(dict(tensors))
    start = 8 + int.from_bytes(content[:8], "little")
    # The library writes metadata in an order that changes, and with it the bytes of the same network.
    metadata = {"format": "pt", _KEY: _sha256(tensors, more), **more}
    header = json.dumps({"__metadata__": metadata, **json.loads(content[8:start])}).encode()
    header += b" " * (-len(header) % 8)  # tensors are aligned to 8 bytes
    return len(header).to_bytes(8, "little") + header + content[start:]


def load_checked(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; they are checked where the file has a checksum of `checked_bytes`.

    Raises:
        ValueError: they are not those that were written.
    """
    tensors, metadata = safetensors.torch.load_file(path), read_metadata(path)
    written = metadata.pop(_KEY, None)
    metadata.pop("format", None)
    if written is not None and written != _sha256(tensors, metadata):
        raise ValueError("its checksum is wrong: the file was changed or damaged since it was written")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """What a file holds beside its tensors; see `checked_bytes`."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Of the tensors' names, types, shapes and values, by name, and of further metadata."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    for key, text in sorted(metadata.items()):
        found.update(f"{key} {text}\n".encode())
    return found.hexdigest()
