"""What a method of adaptation adds to the cross entropy of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

# The mean over the whole batch of a mean over this process' share, as `neq.tasks.Forward.mean`.
Mean = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Both:
    """What the network computes of both domains in a step, the B source images first.

    Args:
        features: input of the classifier head, [2B, F].
        outputs: logits, [2B, K].
        progress: of the run, 0 .. 1.
        share: of each domain's batch, the part that these are.
        mean: over the whole batch.
    """

    features: Tensor
    outputs: Tensor
    progress: float = 1.0
    share: float = 1.0
    mean: Mean = lambda value: value

    @property
    def images(self) -> float:
        """B of all processes together."""
        return len(self.features) / 2 / self.share

    @property
    def source(self) -> tuple[Tensor, Tensor]:
        """Features [B, F] and logits [B, K] of the source images."""
        images = len(self.features) // 2
        return self.features[:images], self.outputs[:images]

    @property
    def target(self) -> tuple[Tensor, Tensor]:
        """Features [B, F] and logits [B, K] of the target images."""
        images = len(self.features) // 2
        return self.features[images:], self.outputs[images:]


class Method(nn.Module):
    """A term R of the loss CE(o_s, y_s) + w R. Its parameters train with the network, outside the budget.

    Attributes:
        weight: w where the settings give none.
        has_shares: whether several processes that share a batch compute the term of the whole batch.
        compares: whether the term reads both domains. One that does not defines `of_target`, so that a step
            may pass the domains one after the other, each with its own backward pass.

    Args:
        features: F, inputs of the classifier head.
        classes: K.
    """

    weight: ClassVar[float] = 1.0
    has_shares: ClassVar[bool] = True
    compares: ClassVar[bool] = True

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        return self.of_target(both.target[1], both.mean)

    def of_target(self, outputs: Tensor, mean: Mean) -> Tensor:
        """R, [], of a term that reads the target alone.

        Args:
            outputs: logits of the target, [B, K].
            mean: over the whole batch.
        """
        raise NotImplementedError
