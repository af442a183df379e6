"""Classification: cross entropy, top-1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from neq.data import Data
from neq.tasks.targets import Targets
from neq.tasks.task import Counts, Forward, StepOutput, Task, TaskInputs

# Images [B, 3, H, W] and labels int64 [B]; and where the run has training targets, those, [B, classes].
LabelledBatch = tuple[Tensor, ...]
Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


class Classification(Task[LabelledBatch]):
    """One label an image, learned by cross entropy; scores are top-1 in per cent and the mean loss.

    Args:
        data: batches and splits.
        device: where batches go.
        targets: of training; none: the labels.
    """

    best_by = "top1"
    has_micro_batches = True
    _layout = torch.channels_last

    def __init__(self, data: Data, device: torch.device, targets: Targets | None = None) -> None:
        self._data, self._device, self._targets = data, device, targets
        self.steps_per_epoch, self.share = data.steps_per_epoch, data.share

    @classmethod
    def of_run(cls, inputs: TaskInputs) -> Self:
        """Classification of the run's data.

        Raises:
            UserError: training targets that do not fit the data.
        """
        return cls(inputs.data, inputs.device, Targets.of_run(inputs.config, inputs.data))

    def batches(self, epoch: int, start: int) -> Iterator[LabelledBatch]:
        """Labelled training batches."""
        batches: Iterator[LabelledBatch] = self._data.train_batches(epoch, start)
        if self._targets is not None:
            batches = self._targets.of_batches(batches, epoch, start)
        return on_device(batches, self._device, self._layout)

    def step(self, forward: Forward, batch: LabelledBatch) -> StepOutput:
        """Cross entropy of the outputs; counts images and hits."""
        images, labels, *targets = batch
        outputs = forward(images)
        loss = cross_entropy(outputs, targets[0] if targets else labels)
        return StepOutput(loss, count_hits(outputs.detach(), labels))

    def micro_batches(self, batch: LabelledBatch, parts: int) -> Iterator[tuple[LabelledBatch, float]]:
        """Consecutive images of the batch."""
        images = len(batch[0])
        parts = min(parts, images)
        for part in zip(*(each.tensor_split(parts) for each in batch), strict=True):
            yield part, len(part[0]) / images

    def evaluate(self, network: Forward, split: str) -> Iterator[Counts]:
        """Counts images, hits and the sum of their losses."""
        batches = self._data.eval_batches(cast(Literal["validation", "test"], split))
        for images, labels in on_device(batches, self._device, self._layout):
            outputs = network(images)
            loss = cross_entropy(outputs, labels, "sum").double()
            yield {**count_hits(outputs, labels), "loss": loss}

    def on_maps(self, data: Data) -> Task[Any] | None:
        """The same on maps; None where images are mixed, or a subclass may use them otherwise."""
        if type(self) is not Classification or (self._targets is not None and self._targets.mixes):
            return None
        return _OnMaps(data, self._device, self._targets)

    def tested(self) -> tuple[Data, Iterator[LabelledBatch]]:
        """The run's data set and the images of its test split."""
        return self._data, on_device(self._data.eval_batches("test"), self._device)

    def scores(self, counts: Counts) -> dict[str, float]:
        """Top-1 in per cent, and the mean cross entropy where the counts have losses."""
        return classification_scores(counts)


class _OnMaps(Classification):
    """Classification of maps, whose layout stays as it is."""

    _layout = torch.preserve_format

    def micro_batches(self, batch: LabelledBatch, parts: int) -> Iterator[tuple[LabelledBatch, float]]:
        """Parts of their own: a view that is saved for backward would count as the whole batch."""
        for (maps, *others), share in super().micro_batches(batch, parts):
            yield (maps.clone() if parts > 1 else maps, *others), share


def cross_entropy(outputs: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """The loss of a batch, in float32, or in float64 where the outputs are: -log softmax(outputs)[label].

    Args:
        outputs: [B, classes].
        labels: int64 [B], or targets [B, classes] (`neq.tasks.targets`).
        reduction: "mean" or "sum" over the images; "none" returns each loss, [B].
    """
    precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    if labels.is_floating_point():
        labels = labels.to(precise.dtype)
    return F.cross_entropy(precise, labels, reduction=reduction)


def count_hits(outputs: Tensor, labels: Tensor) -> Counts:
    """Images, and hits: those whose highest output is their label.

    Args:
        outputs: [B, classes].
        labels: int64 [B].
    """
    return {"images": len(labels), "hits": (outputs.argmax(1) == labels).sum()}


def classification_scores(counts: Counts) -> dict[str, float]:
    """Scores from counts of one image or more.

    Args:
        counts: images and hits; loss too where the mean loss is wanted.

    Returns:
        top1 in per cent, and loss.
    """
    images = int(counts["images"])
    assert images, "scores without images"
    scores = {"top1": 100 * int(counts["hits"]) / images}
    if "loss" in counts:
        scores["loss"] = float(counts["loss"]) / images
    return scores


def on_device(
    batches: Iterable[Tensors], device: torch.device, layout: torch.memory_format = torch.channels_last
) -> Iterator[Tensors]:
    """Batches moved to a device, images in a memory layout."""
    for images, *others in batches:
        moved = (
            images.to(device, memory_format=layout, non_blocking=True),
            *(each.to(device, non_blocking=True) for each in others),
        )
        yield cast(Tensors, moved)
