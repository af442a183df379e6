"""What each of several processes has for itself alone in mid-epoch, in one checkpoint.

Weights, optimizer state and choice are the same in all of them at any step. Running statistics are averaged
after an epoch only, losses and hits are added up there, and every process has random streams of its own.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from neq.training.distributed.collectives import ProcessGroup
from neq.training.epoch_state import EpochState
from neq.utils.seeds import generator

_NAMES = ("losses", "hits", "images", "random", "seconds")


def own_of_all(network: nn.Module, so_far: EpochState, processes: ProcessGroup, share: float) -> list[Tensor]:
    """What every process has for itself, by rank: uint8 each; nothing of a process alone.

    Args:
        network: the plain network.
        so_far: of this process.
        processes: which all call this after the same step.
        share: of the images of a batch, those of this process.
    """
    if processes.count == 1:
        return []
    state, file = so_far.state(), io.BytesIO()
    own = {name: state[name] for name in _NAMES}
    torch.save({**own, "share": share, "buffers": dict(network.named_buffers())}, file)
    return processes.gather(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))


def take_own(
    of_all: list[Tensor], network: nn.Module, so_far: EpochState, processes: ProcessGroup, *stream: int
) -> None:
    """Gives a process back what it had for itself; where there were more or fewer, a share of what all had.

    Args:
        of_all: as `own_of_all` gave it.
        network: the plain network, of the first process.
        so_far: of the first process.
        processes: of the run now.
        stream: seed and epoch, for random streams where there were more or fewer processes.
    """
    if (len(of_all) or 1) != processes.count:
        if of_all:
            _take(_together([_read(each) for each in of_all]), network, so_far)
        if not processes.is_first:
            so_far.hits.zero_()
            so_far.images = 0
            seed, epoch = stream
            streams = generator(seed, "dropout", epoch, so_far.step, processes.rank)
            so_far.random = {"cpu": streams.get_state()}
            if so_far.losses.is_cuda:
                on_device = torch.Generator(so_far.losses.device).manual_seed(streams.initial_seed())
                so_far.random["cuda"] = on_device.get_state()
    elif of_all:
        _take(_read(of_all[processes.rank]), network, so_far)


def _read(own: Tensor) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(own.numpy().tobytes()), "cpu", weights_only=True)
    except (MemoryError, RuntimeError):
        raise
    except Exception:  # what is damaged fails in many ways; torch's own text tells how to execute it
        raise ValueError("what a process has for itself is damaged") from None
    return state


def _take(own: dict[str, Any], network: nn.Module, so_far: EpochState) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(own["buffers"][name])
    so_far.images, so_far.random, so_far.seconds = own["images"], own["random"], own["seconds"]
    so_far.losses.copy_(own["losses"])
    so_far.hits.copy_(own["hits"])


def _together(all_own: list[dict[str, Any]]) -> dict[str, Any]:
    """What processes had, as one process: means by their shares, sums of counts, the rest of the first."""

    def mean(values: list[Tensor]) -> Tensor:
        if not values[0].is_floating_point():
            return values[0]
        weighted = [value.double() * own["share"] for value, own in zip(values, all_own, strict=True)]
        return torch.stack(weighted).sum(0).to(values[0].dtype)

    first = all_own[0]
    return {
        **first,
        "losses": mean([own["losses"] for own in all_own]),
        "hits": torch.stack([own["hits"] for own in all_own]).sum(0),
        "images": sum(own["images"] for own in all_own),
        "buffers": {name: mean([own["buffers"][name] for own in all_own]) for name in first["buffers"]},
    }
