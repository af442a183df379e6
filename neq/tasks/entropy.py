"""Adaptation to images without labels: the entropy of outputs, minimized by scale and shift of norms (TENT).

    L = mean over images of H(p),    H(p) = -sum_c p_c ln p_c,    p = softmax(outputs)

Norms use the statistics of the batch, in the evaluation beside it too. An image's prediction is made before
the step that learns from it, so that the accuracy of an epoch's steps is the accuracy online. Labels are
counted and nothing else. Where nothing trains, what is left is the effect of the statistics alone, or with
frozen norms the network as it was.

Source: Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from neq.backward import on_batch_statistics, stop_draws
from neq.backward.batch_norms import batch_norms
from neq.config import OBJECTIVES, Config
from neq.data import Data
from neq.tasks.classification import Classification, LabelledBatch, count_hits, on_device
from neq.tasks.task import Counts, Forward, StepOutput, TaskInputs
from neq.utils.errors import UserError

# Fewer images than these have statistics of their own rather than those of their domain.
FEW_IMAGES = 32


class Entropy(Classification):
    """Mean entropy of the outputs; scores are top-1 in per cent, before a step, and that entropy as the loss.

    Args:
        data: batches and splits.
        device: where batches go.
        network: that is evaluated.
        images: whose statistics norms use together in an evaluation; None: running statistics.
    """

    def __init__(self, data: Data, device: torch.device, network: nn.Module, images: int | None) -> None:
        super().__init__(data, device)
        self._network, self._images = network, images

    @classmethod
    def of_run(cls, inputs: TaskInputs) -> Self:
        """The task of the run's data.

        Raises:
            UserError: batch statistics are all that changes, and the network has no batch norm.
        """
        config, images = inputs.config, _images_together(inputs.config)
        if images is not None:
            trains = OBJECTIVES[config.objective].trains
            if not batch_norms(inputs.network):
                without = f"{config.net_config.net_name} has no batch norm, so no statistics to adapt"
                if not trains:
                    raise UserError(f"objective {config.objective!r} changes nothing: {without}; take source")
                inputs.notes(f"{without}: other norms train their scale and shift")
            elif images < FEW_IMAGES:
                inputs.notes(
                    f"batch norms see {images} images at a time, of which objective {config.objective!r} "
                    f"needs {FEW_IMAGES} or more: raise base_batch_size, or with micro_batch_size give "
                    "--ghost_batch_size"
                )
            if trains and config.run_config.n_epochs > 1:
                inputs.notes("over several epochs minimizing the entropy alone may collapse: n_epochs 1")
        return cls(inputs.data, inputs.device, inputs.network, images)

    @classmethod
    def prepared(cls, network: nn.Module, config: Config) -> nn.Module:
        """The network without dropout: what is predicted in training counts."""
        stop_draws(network)
        return network

    def step(self, forward: Forward, batch: LabelledBatch) -> StepOutput:
        """Entropy of the outputs; counts images and hits."""
        images, labels = batch
        outputs = forward(images)
        return StepOutput(entropy(outputs).mean(), count_hits(outputs.detach(), labels))

    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """Counts images, hits and the sum of the entropies."""
        name = cast(Literal["validation", "test"], split)
        found = self._data.eval_batches(name)
        if self._images is not None:
            found = self._data.whole_batches(name, self._images)
        for images, labels in on_device(found, self._device):
            with nullcontext() if self._images is None else on_batch_statistics(self._network):
                outputs = network(images)
            yield {**count_hits(outputs, labels), "loss": entropy(outputs).sum().double()}


def entropy(outputs: Tensor) -> Tensor:
    """H(softmax(outputs)) in nats [B], in float32, or in float64 where the outputs are.

    Args:
        outputs: [B, classes].
    """
    logs = outputs.to(torch.promote_types(outputs.dtype, torch.float32)).log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def _images_together(config: Config) -> int | None:
    """The images whose statistics norms use together; None where they use running statistics."""
    if config.NEq_config.norm_mode == "frozen":
        return None
    settings, batch = config.run_config, config.data_provider.base_batch_size
    return settings.ghost_batch_size or min(settings.micro_batch_size or batch, batch)
