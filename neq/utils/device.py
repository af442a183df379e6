"""The device that a command computes on."""

from __future__ import annotations

import torch

from neq.utils.errors import UserError


def pick_device(wanted: str, local_rank: int = 0, local_count: int = 1) -> torch.device:
    """The device to compute on.

    Args:
        wanted: "auto" takes CUDA where there is one.
        local_rank: of this process on its machine, 0 .. local_count - 1; each takes the GPU of its number.
        local_count: processes of the run on this machine.

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
        if local_count > 1:
            return _own_gpu(local_rank, local_count)
    return torch.device(wanted)


def _own_gpu(local_rank: int, local_count: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if local_count > gpus:
        raise UserError(
            f"{local_count} processes on this machine need a GPU each, and it has {gpus}; "
            f"start {gpus} a machine (--nproc-per-node {gpus}), or take --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
