"""Cross entropy on source images that are weighted to stand for the target: L = mean of w CE(o, y)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from neq.adaptation.domains import Domains
from neq.adaptation.supervised import SourceOnly
from neq.tasks import Forward, StepOutput, TaskInputs
from neq.tasks.classification import count_hits, cross_entropy
from neq.utils.errors import UserError

# Images [B, 3, S, S], labels [B] and weights [B].
WeightedBatch = tuple[Tensor, Tensor, Tensor]


class Weighted(SourceOnly):
    """Weights that are found before the first step, from the network that the run starts from."""

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        super().__init__(inputs, domains)
        objective = inputs.config.objective
        if self.share < 1:
            raise UserError(f"objective {objective!r} needs all target images in one process; start one")
        if inputs.config.net_config.weights == "default":
            inputs.notes(f"{objective} starts from a head that was not trained; give the --weights of a run")
        self._notes, self._device = inputs.notes, inputs.device
        self._weights: Tensor | None = None

    @abstractmethod
    def _found(self) -> Tensor:
        """The weights in float32, of classes or images."""

    @abstractmethod
    def _of(self, labels: Tensor, numbers: Tensor) -> Tensor:
        """The number of the weight of each image of a batch, [B].

        Args:
            labels: of the images.
            numbers: of the images in the data set.
        """

    def batches(self, epoch: int, start: int) -> Iterator[WeightedBatch]:
        """Labelled source batches with their weights."""
        if self._weights is None:
            self._weights = self._found()
        numbers = self.domains.source_numbers(epoch * self.steps_per_epoch + start)
        for images, labels in super().batches(epoch, start):
            own = self._of(labels.cpu(), next(numbers))
            yield images, labels, self._weights[own].to(images.device)

    def step(self, forward: Forward, batch: WeightedBatch) -> StepOutput:  # type: ignore[override]
        """Counts images and hits."""
        images, labels, weights = batch
        outputs = forward(images)
        losses = cross_entropy(outputs, labels, "none")
        return StepOutput((weights.to(losses.dtype) * losses).mean(), count_hits(outputs.detach(), labels))

    def micro_batches(  # type: ignore[override]
        self, batch: WeightedBatch, parts: int
    ) -> Iterator[tuple[WeightedBatch, float]]:
        """Consecutive images of the batch."""
        images = len(batch[0])
        for part in zip(*(each.tensor_split(min(parts, images)) for each in batch), strict=True):
            yield part, len(part[0]) / images

    def state(self) -> dict[str, Any]:
        """The weights, once they are known."""
        return {} if self._weights is None else {"weights": self._weights}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
            ValueError: it is not the state of this task.
        """
        if state and state.keys() != {"weights"}:
            raise ValueError("the checkpoint has no weights of this task")
        self._weights = state.get("weights")
