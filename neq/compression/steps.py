"""Several compressions one after the other, and the training that repairs what they cost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neq.compression.attention import add_attention
from neq.compression.changed import Compressed
from neq.compression.factorization import low_rank
from neq.compression.pruning import Batches, prune
from neq.compression.sparsity import sparsify
from neq.config import Resolved, read_yaml, resolve
from neq.runs.layout import CONFIG

STEPS = ("prune", "low_rank", "attention", "sparsify")


def compress(
    start: Compressed, steps: Mapping[str, Mapping[str, Any]], image: Tensor, batches: Callable[[], Batches]
) -> Compressed:
    """A network after some steps; its batch norms then get the statistics of some training images.

    Args:
        start: stays as it is.
        steps: some of STEPS in their order -> the arguments of `prune`, `low_rank`, `add_attention` or
            `sparsify`.
        image: float32 [1, 3, S, S], of the size that the network is used with.
        batches: returns training images [B, 3, S, S] with labels [B], the same at each call.

    Raises:
        UserError: a step that this network does not allow.
    """
    made = start
    for name, how in steps.items():
        if name == "prune":
            made = prune(made, image, batches=batches(), **how)
        elif name == "low_rank":
            made = low_rank(made, **how)
        elif name == "attention":
            made = add_attention(made, image, **how)
        else:
            assert name == "sparsify", name
            made = sparsify(made, **how)
    return Compressed(with_statistics(made.network, (images for images, _ in batches())), made.recipe)


@torch.no_grad()
def with_statistics(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy of a network whose batch norms have the mean statistics of some images.

    A layer that lost inputs or rank has outputs of another mean and variance than its norm expects.

    Args:
        network: in eval mode; stays as it is.
        batches: images [B, 3, S, S].
    """
    made = copy.deepcopy(network)
    norms = [each for each in made.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    for images in batches if norms else ():
        made(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return made.eval()


def fine_tuning(source: Path, folder: Path, settings: Mapping[str, Any]) -> Resolved:
    """The configuration that trains a compressed network as the run trained that it comes from.

    Args:
        source: folder of that run.
        folder: of the compressed network.
        settings: that differ from the run's.

    Raises:
        UserError: settings that are not allowed.
    """
    start = {"net_name": f"compressed:{folder}", "weights": "default"}
    return resolve(read_yaml(source / CONFIG), {**start, **settings})
