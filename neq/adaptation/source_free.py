"""SHOT as a run: the target alone, from the weights of a run on the source. See `neq.adaptation.shot`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neq.adaptation.domains import Domains
from neq.adaptation.shot import LABEL_WEIGHT, information_loss, pseudo_labels
from neq.adaptation.task import Adaptation
from neq.networks.heads import HeadInputs, head_name
from neq.tasks import Forward, StepOutput, TaskInputs
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode

# Images [B, 3, S, S] and their pseudo labels [B].
Guessed = tuple[Tensor, Tensor]


class SourceFree(Adaptation):
    """Information maximization with pseudo labels, under a frozen head."""

    def __init__(self, inputs: TaskInputs, domains: Domains) -> None:
        super().__init__(inputs, domains)
        if inputs.config.NEq_config.train_head:
            raise UserError("objective 'adapt_shot' keeps the head as it is; give train_head false")
        if self.share < 1:
            raise UserError("objective 'adapt_shot' needs all target images in one process; start one")
        if inputs.config.net_config.weights == "default":
            inputs.notes("adapt_shot starts from a head that was not trained; give the --weights of a run")
        self._head = inputs.network.get_submodule(head_name(inputs.network))
        # By the number of the image; of this round.
        self._guesses = torch.zeros(0, dtype=torch.int64)
        self._round: int | None = None

    def batches(self, epoch: int, start: int) -> Iterator[Guessed]:
        """Target images with the pseudo labels of this round."""
        self.begin(epoch, start)
        if start == 0 and epoch != self._round:  # which a policy may have looked into before
            self._guesses, self._round = self._guessed(), epoch
        for images, numbers in self.domains.target_batches(epoch, start):
            yield images, self._guesses[numbers.cpu()].to(images.device)

    @torch.no_grad()
    def _guessed(self) -> Tensor:
        """The pseudo labels of all target images."""
        outputs, places = [], []
        with HeadInputs(self._head) as kept, eval_mode(self.network):
            for images, numbers in self.domains.target_batches(None):
                outputs.append(self.network(images))
                places.append(numbers.cpu())
        found = pseudo_labels(kept.features(), torch.cat(outputs).float().softmax(1)).cpu()
        numbers = torch.cat(places)
        guesses = torch.zeros(int(numbers.max()) + 1, dtype=torch.int64)
        guesses[numbers] = found
        return guesses

    def step(self, forward: Forward, batch: Guessed) -> StepOutput:
        """Counts images."""
        images, guesses = batch
        outputs = forward(images)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        loss = information_loss(outputs) + LABEL_WEIGHT * F.cross_entropy(outputs, guesses)
        return StepOutput(loss, {"seen": len(images)})

    def state(self) -> dict[str, Any]:
        """The pseudo labels of this round."""
        return {"guesses": self._guesses}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
            ValueError: it is not the state of this task.
        """
        if state.keys() != {"guesses"}:
            raise ValueError("the task has pseudo labels, the checkpoint has none")
        self._guesses, self._round = state["guesses"], None
