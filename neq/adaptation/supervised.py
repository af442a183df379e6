"""The rows that methods are compared with: the source alone, and the target with its labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from neq.adaptation.domains import Domains
from neq.adaptation.task import Adaptation
from neq.tasks import Forward, StepOutput, TaskInputs
from neq.tasks.classification import LabelledBatch


class SourceOnly(Adaptation):
    """Cross entropy on the source, for as many steps as a method takes."""

    has_micro_batches = True

    def batches(self, epoch: int, start: int) -> Iterator[LabelledBatch]:
        """Labelled source batches, as many as the target has."""
        self.begin(epoch, start)
        batches = self.domains.source_batches(epoch * self.steps_per_epoch + start)
        return islice(batches, self.steps_per_epoch - start)

    def step(self, forward: Forward, batch: LabelledBatch) -> StepOutput:
        """As of classification."""
        return self._source.step(forward, batch)

    def micro_batches(self, batch: LabelledBatch, parts: int) -> Iterator[tuple[LabelledBatch, float]]:
        """As of classification."""
        return self._source.micro_batches(batch, parts)


class LabelledTarget(SourceOnly):
    """Cross entropy on the target's training split with its labels, an upper bound.

    With a `train_part` and the weights of a run on the source it is fine-tuning to few labelled images.
    """

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        super().__init__(inputs, domains)
        self.steps_per_epoch = domains.target.steps_per_epoch

    def batches(self, epoch: int, start: int) -> Iterator[LabelledBatch]:
        """Labelled target batches."""
        self.begin(epoch, start)
        return self.domains.labelled_target(epoch, start)
