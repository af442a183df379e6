"""AdaBN as a run: the statistics of the target, and nothing that trains. See `neq.adaptation.statistics`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neq.adaptation.domains import Domains
from neq.adaptation.statistics import adapt_statistics
from neq.adaptation.task import Adaptation
from neq.backward.batch_norms import batch_norms
from neq.tasks import Forward, StepOutput, TaskInputs
from neq.utils.errors import UserError


class AdaBn(Adaptation):
    """One step: the pass over the target."""

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        super().__init__(inputs, domains)
        if not batch_norms(inputs.network):
            raise UserError(
                f"objective 'adapt_adabn' changes nothing: {inputs.config.net_config.net_name} has no batch "
                "norm; take another objective"
            )
        if self.share < 1:
            raise UserError("objective 'adapt_adabn' needs all target images in one process; start one")
        self.steps_per_epoch = 1

    def batches(self, epoch: int, start: int) -> Iterator[Tensor]:
        """One batch of the target's images, after the pass."""
        if start == 0:
            adapt_statistics(self.network, self.domains.target_images())
            yield next(self.domains.target_batches(epoch))[0]

    def step(self, forward: Forward, batch: Tensor) -> StepOutput:
        """A loss of zero; counts images."""
        return StepOutput(torch.zeros((), device=batch.device), {"seen": len(forward(batch))})
