"""Label shift as a run (BBSE): cross entropy on the source, its classes weighted as the target has them.

The weights are those of `neq.adaptation.reweighting`, from the network that the run starts from: its
confusion on the source's test split, and its predictions on the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from neq.adaptation.domains import Domains
from neq.adaptation.reweighting import effective_images, label_ratio
from neq.adaptation.supervised import SourceOnly
from neq.tasks import Forward, StepOutput, TaskInputs
from neq.tasks.classification import LabelledBatch, count_hits, cross_entropy, on_device
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode


class LabelShift(SourceOnly):
    """Weighted cross entropy on the source: L = mean of w_y CE(o, y)."""

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        super().__init__(inputs, domains)
        if self.share < 1:
            raise UserError("objective 'adapt_bbse' needs all target images in one process; start one")
        if inputs.config.net_config.weights == "default":
            inputs.notes("adapt_bbse starts from a head that was not trained; give the --weights of a run")
        self._notes, self._device = inputs.notes, inputs.device
        self._weights: Tensor | None = None

    def batches(self, epoch: int, start: int) -> Iterator[LabelledBatch]:
        """Labelled source batches, once the weights are known."""
        if self._weights is None:
            self._weights = self._found()
            shown = ", ".join(f"{weight:.2f}" for weight in self._weights.tolist())
            classes = effective_images(self._weights)
            self._notes(f"weights of the classes: {shown} (as varied as {classes:.1f} equal ones)")
        return super().batches(epoch, start)

    @torch.no_grad()
    def _found(self) -> Tensor:
        """The weight of each class, [K], in float32."""
        size = len(self.domains.source.classes)
        confusion, predicted = torch.zeros(size, size).double(), torch.zeros(size).double()
        with eval_mode(self.network):
            for images, labels in on_device(self.domains.source.eval_batches("test"), self._device):
                found = self.network(images).argmax(1).cpu()
                confusion.index_put_((found, labels.cpu()), torch.ones(len(found)).double(), accumulate=True)
            for images, _ in self.domains.target_batches(None):
                predicted += torch.bincount(self.network(images).argmax(1).cpu(), minlength=size)
        try:
            return label_ratio(confusion / confusion.sum(), predicted / predicted.sum()).float()
        except ValueError as error:
            raise UserError(f"{error}; train it on the source first, and give its --weights") from error

    def step(self, forward: Forward, batch: LabelledBatch) -> StepOutput:
        """Counts images and hits."""
        images, labels = batch
        outputs = forward(images)
        losses = cross_entropy(outputs, labels, "none")
        assert self._weights is not None, "batches come first"
        weights = self._weights.to(losses.device, losses.dtype)[labels]
        return StepOutput((weights * losses).mean(), count_hits(outputs.detach(), labels))

    def state(self) -> dict[str, Any]:
        """The weights of the classes, once they are known."""
        return {} if self._weights is None else {"weights": self._weights}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
            ValueError: it is not the state of this task.
        """
        classes = len(self.domains.source.classes)
        if state and (state.keys() != {"weights"} or state["weights"].shape != (classes,)):
            raise ValueError("the checkpoint has no weights of these classes")
        self._weights = state.get("weights")
