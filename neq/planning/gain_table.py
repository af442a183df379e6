"""Gains of plans that earlier tasks left: a table for each device, torch version and network."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import torch
from torch import nn

import neq
from neq.planning.gain import Mean
from neq.planning.profiler import Means
from neq.utils.atomic_files import write_text
from neq.utils.cpu import cpu_model


def table_path(folder: Path, device: torch.device, network: nn.Module, image_size: int) -> Path:
    """The file of a table.

    Args:
        folder: of all tables; it need not exist.
        device: that trains.
        network: that is trained; its modules count, its weights do not.
        image_size: in pixels.
    """
    on_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_cuda else cpu_model()
    version = (torch.__version__, neq.__version__, torch.get_num_threads())
    parts = (device.type, name, version, str(network), image_size)
    return folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.json"


def read_means(path: Path) -> dict[str, Mean]:
    """The means in a file; none where there is no file, or a damaged one."""
    with contextlib.suppress(OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): Mean(float(each["rate"]), float(each["noise"])) for name, each in found.items()}
    return {}


def write_means(path: Path, means: Means) -> None:
    """Writes the means; where nothing can be written, nothing is kept."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({name: vars(mean) for name, mean in means.items()}, indent=1) + "\n")
