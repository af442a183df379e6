"""Label shift as a run (BBSE): cross entropy on the source, its classes weighted as the target has them.

The weights are those of `neq.adaptation.reweighting`, from the network that the run starts from: its
confusion on the source's test split, and its predictions on the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.adaptation.reweighting import effective_images, label_ratio
from neq.adaptation.weighted import Weighted
from neq.tasks.classification import on_device
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode


class LabelShift(Weighted):
    """Cross entropy on the source, with a weight for each class."""

    @torch.no_grad()
    def _found(self) -> Tensor:
        """The weight of each class, [K]."""
        size = len(self.domains.source.classes)
        confusion, predicted = torch.zeros(size, size).double(), torch.zeros(size).double()
        with eval_mode(self.network):
            for images, labels in on_device(self.domains.source.eval_batches("test"), self._device):
                found = self.network(images).argmax(1).cpu()
                confusion.index_put_((found, labels.cpu()), torch.ones(len(found)).double(), accumulate=True)
            for images, _ in self.domains.target_batches(None):
                predicted += torch.bincount(self.network(images).argmax(1).cpu(), minlength=size)
        try:
            weights = label_ratio(confusion / confusion.sum(), predicted / predicted.sum()).float()
        except ValueError as error:
            raise UserError(f"{error}; train it on the source first, and give its --weights") from error
        shown = ", ".join(f"{weight:.2f}" for weight in weights.tolist())
        classes = effective_images(weights)
        self._notes(f"weights of the classes: {shown} (as varied as {classes:.1f} equal ones)")
        return weights

    def _of(self, labels: Tensor, numbers: Tensor) -> Tensor:
        return labels
