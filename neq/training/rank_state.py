"""Per-rank state of an interrupted epoch (generators, losses, running statistics), in one checkpoint.

Weights, optimizer state and selection are the same on every rank after any step. Running statistics are
averaged after an epoch only, losses and counts are added up there, and every rank has its own generators.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from neq.tasks import add_counts
from neq.training.checkpoint import upgraded_epoch
from neq.training.distributed.collectives import ProcessGroup
from neq.training.epoch_state import EpochState, counts_on
from neq.utils.seeds import generator

_NAMES = ("losses", "counts", "random", "seconds")


def gather_ranks(
    network: nn.Module, epoch_state: EpochState, processes: ProcessGroup, share: float
) -> list[Tensor]:
    """The state of every rank, by rank: uint8 each; empty for a process alone.

    Args:
        network: the plain network.
        epoch_state: of this rank.
        processes: all of which call this after the same step.
        share: of a batch, the part of this rank.
    """
    if processes.count == 1:
        return []
    state, file = epoch_state.state(), io.BytesIO()
    own = {name: state[name] for name in _NAMES}
    torch.save({**own, "share": share, "buffers": dict(network.named_buffers())}, file)
    return processes.gather(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))


def restore_rank(
    ranks: list[Tensor], network: nn.Module, epoch_state: EpochState, processes: ProcessGroup, *stream: int
) -> None:
    """Restores this rank's state; with another number of processes, a share of the state of all.

    Args:
        ranks: as `gather_ranks` returned it.
        network: the plain network, of the first rank.
        epoch_state: of the first rank.
        processes: of the run now.
        stream: seed and epoch, for new generators where the number of processes has changed.
    """
    if (len(ranks) or 1) != processes.count:
        if ranks:
            _restore(_merged([_read(each) for each in ranks]), network, epoch_state)
        if not processes.is_first:
            epoch_state.counts = {name: value * 0 for name, value in epoch_state.counts.items()}
            seed, epoch = stream
            streams = generator(seed, "dropout", epoch, epoch_state.step, processes.rank)
            epoch_state.random = {"cpu": streams.get_state()}
            if epoch_state.losses.is_cuda:
                on_device = torch.Generator(epoch_state.losses.device).manual_seed(streams.initial_seed())
                epoch_state.random["cuda"] = on_device.get_state()
    elif ranks:
        _restore(_read(ranks[processes.rank]), network, epoch_state)


def _read(rank: Tensor) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(rank.numpy().tobytes()), "cpu", weights_only=True)
    except (MemoryError, RuntimeError):
        raise
    except Exception:  # damaged content fails in many ways; torch's own text explains how to execute it
        raise ValueError("the state of a rank is damaged") from None
    return upgraded_epoch(state)


def _restore(rank: dict[str, Any], network: nn.Module, epoch_state: EpochState) -> None:
    for name, buffer in network.named_buffers():
        buffer.copy_(rank["buffers"][name])
    epoch_state.random, epoch_state.seconds = rank["random"], rank["seconds"]
    epoch_state.losses.copy_(rank["losses"])
    epoch_state.counts = counts_on(rank["counts"], epoch_state.losses.device)


def _merged(ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """The states of several ranks as one: means by their shares, sums of counts, the rest of the first."""

    def mean(values: list[Tensor]) -> Tensor:
        if not values[0].is_floating_point():
            return values[0]
        weighted = [value.double() * rank["share"] for value, rank in zip(values, ranks, strict=True)]
        return torch.stack(weighted).sum(0).to(values[0].dtype)

    first, counts = ranks[0], dict[str, Tensor | int]()
    for rank in ranks:
        counts = dict(add_counts(counts, rank["counts"]))
    return {
        **first,
        "losses": mean([rank["losses"] for rank in ranks]),
        "counts": counts,
        "buffers": {name: mean([rank["buffers"][name] for rank in ranks]) for name in first["buffers"]},
    }
