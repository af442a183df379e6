"""Evaluating the plain network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.training.distributed.collectives import SINGLE_PROCESS, ProcessGroup
from neq.utils.eval_mode import eval_mode


@dataclass(frozen=True)
class Scores:
    """How a network did on some images.

    Args:
        top1: per cent of the images whose highest output is their label.
        loss: mean cross-entropy.
    """

    top1: float
    loss: float


def cross_entropy(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """The loss of a batch, in float32, or in float64 where the network is.

    Args:
        outputs: [B, classes].
        labels: int64 [B].
        reduction: "mean" or "sum" over the images.
    """
    precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return F.cross_entropy(precise, labels, reduction=reduction)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "fp32",
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Scores:
    """Top-1 and loss of the plain network in eval mode; it is left in the mode it was in.

    Args:
        network: the plain network, on the device.
        batches: (images [B, 3, H, W], labels int64 [B]); every image once, in one of the processes.
        precision: "fp32", or "bf16" for autocast.
        processes: that share the images; each gets the scores of all.
    """
    images_seen, hits = 0, 0
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with eval_mode(network):
        for images, labels in batches:
            images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = network(images)
            loss += cross_entropy(outputs, labels, "sum").double()
            hits += int((outputs.argmax(1) == labels).sum())
            images_seen += len(labels)
    images_seen, hits, loss = processes.sum(images_seen), processes.sum(hits), processes.sum(loss)
    assert images_seen, "an evaluation without images"
    return Scores(100 * hits / images_seen, float(loss) / images_seen)
