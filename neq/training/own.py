"""What each of several processes has for itself alone in mid-epoch, in one checkpoint.

Weights, optimizer state and choice are the same in all of them at any step. Running statistics are averaged
after an epoch only, losses and hits are added up there, and every process has random streams of its own.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from neq.errors import UserError
from neq.training.epoch_so_far import EpochSoFar
from neq.training.processes import Processes

_NAMES = ("losses", "hits", "images", "random", "seconds")


def own_of_all(network: nn.Module, so_far: EpochSoFar, processes: Processes) -> list[Tensor]:
    """What every process has for itself, by rank: uint8 each; nothing of a process alone.

    Args:
        network: the plain network.
        so_far: of this process.
        processes: which all call this after the same step.
    """
    if processes.count == 1:
        return []
    state, file = so_far.state(), io.BytesIO()
    own = {name: state[name] for name in _NAMES}
    torch.save({**own, "buffers": dict(network.named_buffers())}, file)
    return processes.gather(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))


def take_own(of_all: list[Tensor], network: nn.Module, so_far: EpochSoFar, processes: Processes) -> None:
    """Gives a process back what it had for itself.

    Args:
        of_all: as `own_of_all` gave it.
        network: the plain network, of the first process.
        so_far: of the first process.
        processes: as many as were.

    Raises:
        UserError: there were fewer or more.
    """
    count = len(of_all) or 1
    if count != processes.count:
        raise UserError(
            f"the checkpoint is in the middle of an epoch of {count} process{'' if count == 1 else 'es'}, "
            f"this run has {processes.count}; resume it with as many as it had"
        )
    if count == 1:
        return
    own = torch.load(io.BytesIO(of_all[processes.rank].numpy().tobytes()), "cpu", weights_only=True)
    for name, buffer in network.named_buffers():
        buffer.copy_(own["buffers"][name])
    so_far.images, so_far.random, so_far.seconds = own["images"], own["random"], own["seconds"]
    so_far.losses.copy_(own["losses"])
    so_far.hits.copy_(own["hits"])
