"""Several compressions one after the other, and the training that repairs what they cost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neq.compression.attention import add_attention
from neq.compression.binary import binarize
from neq.compression.changed import Compressed
from neq.compression.factorization import low_rank
from neq.compression.movement import Movement
from neq.compression.pruning import BY_MOVEMENT, Batches, prune
from neq.compression.rewind import rewind
from neq.compression.sparsity import sparsify
from neq.config import Resolved, read_yaml, resolve
from neq.runs.layout import CONFIG

STEPS = ("prune", "low_rank", "attention", "sparsify", "rewind", "binarize")


@dataclass(frozen=True)
class Inputs:
    """What steps look at beside the network; each is made where a step needs it.

    Args:
        image: float32 [1, 3, S, S], of the size that the network is used with.
        batches: returns training images [B, 3, S, S] with labels [B], the same at each call.
        run_start: returns the network that the run started from.
        movement: returns how far its neurons moved since.
    """

    image: Tensor
    batches: Callable[[], Batches]
    run_start: Callable[[], nn.Module] | None = None
    movement: Callable[[], Movement] | None = None


def compress(start: Compressed, steps: Mapping[str, Mapping[str, Any]], inputs: Inputs) -> Compressed:
    """A network after some steps; its batch norms then get the statistics of some training images.

    Args:
        start: stays as it is.
        steps: some of STEPS in their order -> the arguments of `prune`, `low_rank`, `add_attention` or
            `sparsify`; `rewind` and `binarize` have none.
        inputs: of this network.

    Returns:
        The network; without steps, as it is.

    Raises:
        UserError: a step that this network does not allow.
    """
    if not steps:
        return start
    made = start
    for name, how in steps.items():
        if name == "prune":
            looks_at_run = how.get("importance") in BY_MOVEMENT
            moved = inputs.movement() if looks_at_run and inputs.movement is not None else None
            made = prune(made, inputs.image, batches=inputs.batches(), moved=moved, **how)
        elif name == "low_rank":
            made = low_rank(made, **how)
        elif name == "attention":
            made = add_attention(made, inputs.image, **how)
        elif name == "binarize":
            made = binarize(made, inputs.image)
        elif name == "sparsify":
            made = sparsify(made, **how)
        else:
            assert name == "rewind", name
            assert inputs.run_start is not None
            made = rewind(made, inputs.run_start())
    images = (images for images, _ in inputs.batches())
    return Compressed(with_statistics(made.network, images), made.recipe)


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
