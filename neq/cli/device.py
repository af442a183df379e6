"""The device that a command computes on."""

from __future__ import annotations

import torch

from neq.errors import UserError
from neq.training import ALONE, Processes


def pick_device(wanted: str, processes: Processes = ALONE) -> torch.device:
    """The device to compute on.

    Args:
        wanted: "auto" takes CUDA where there is one.
        processes: of the run; each takes a GPU of its own.

    Raises:
        UserError: "cuda" where there is none, or fewer than processes.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available here; take --device cpu or auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        if processes.count > 1:
            return _own_gpu(processes)
    return torch.device(wanted)


def _own_gpu(processes: Processes) -> torch.device:
    gpus = torch.cuda.device_count()
    if processes.local_count > gpus:
        raise UserError(
            f"{processes.local_count} processes on this machine need a GPU each, and it has {gpus}; "
            f"start {gpus} a machine (--nproc-per-node {gpus}), or take --device cpu"
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)
