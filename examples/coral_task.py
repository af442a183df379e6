"""A task of one's own: labelled source images, unlabelled target images, and a CORAL loss between them.

The second loader and the second forward pass are all it adds: plan, budget, checkpoints and processes are the
loop's. As an objective, `neq.train(objective="coral", dataset="image_folder", root="photos")` adapts to the
images in photos-target.

Source: Sun and Saenko, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, 2016, eq. 1-3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neq.config import Objective, register_objective
from neq.data import Data
from neq.tasks import Classification, Counts, Forward, StepOutput, Task, TaskInputs
from neq.tasks.classification import LabelledBatch, count_hits, cross_entropy


class Coral(Task[tuple[LabelledBatch, Tensor]]):
    """Cross entropy of the source plus the distance of the covariances of both domains' outputs.

    Args:
        source: labelled images, which are evaluated too.
        target: images whose labels are not looked at; in batches of the same size.
        device: where batches go.
        weight: of the CORAL loss.
    """

    best_by = "top1"
    forwards = 2

    def __init__(self, source: Data, target: Data, device: torch.device, weight: float = 1.0) -> None:
        if source.share != target.share:
            raise ValueError("source and target need batches of the same size")
        self._source, self._target = Classification(source, device), target
        self._device, self._weight = device, weight
        self.steps_per_epoch, self.share = source.steps_per_epoch, source.share

    @classmethod
    def of_run(cls, inputs: TaskInputs) -> Coral:
        """From the run's data set to the folder beside it, ROOT-target."""
        settings = inputs.config.data_provider
        target = inputs.open_data(settings.model_copy(update={"root": f"{settings.root}-target"}))
        return cls(inputs.data, target, inputs.device)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[LabelledBatch, Tensor]]:
        """Source batches, each with the next target batch."""
        target = self._target_batches(epoch * self.steps_per_epoch + start)
        return zip(self._source.batches(epoch, start), target, strict=False)

    def _target_batches(self, step: int) -> Iterator[Tensor]:
        """Target images from a step of the run on, pass after pass: a resumed run finds the same ones."""
        while True:
            epoch, first = divmod(step, self._target.steps_per_epoch)
            for images, _ in self._target.train_batches(epoch, first):
                yield images.to(self._device, memory_format=torch.channels_last)
                step += 1

    def step(self, forward: Forward, batch: tuple[LabelledBatch, Tensor]) -> StepOutput:
        """One forward pass of each domain."""
        (images, labels), unlabelled = batch
        outputs = forward(images)
        distance = coral(self._covariance(forward, outputs), self._covariance(forward, forward(unlabelled)))
        loss = cross_entropy(outputs, labels) + self._weight * distance
        return StepOutput(loss, count_hits(outputs.detach(), labels))

    def _covariance(self, forward: Forward, x: Tensor) -> Tensor:
        """C = (E[x x^T] - E[x] E[x]^T) n / (n - 1) over the whole batch, of which this rank has x [B, d]."""
        moments = forward.mean(torch.cat([x.mean(0, keepdim=True), x.T @ x / len(x)]))
        mean, second, n = moments[0], moments[1:], len(x) / self.share
        return (second - torch.outer(mean, mean)) * (n / (n - 1))

    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """As classification of the source."""
        return self._source.evaluate(network, split)

    def scores(self, counts: Counts) -> dict[str, float]:
        """As classification of the source."""
        return self._source.scores(counts)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """||C_S - C_T||_F^2 / (4 d^2) of two covariances [d, d]."""
    return (source - target).square().sum() / (4 * len(source) ** 2)


register_objective(Objective("coral", f"{__name__}:{Coral.__name__}"))
