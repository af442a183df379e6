"""The discriminator of adversarial methods: which domain are features of?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 1024


class Discriminator(nn.Sequential):
    """Two hidden layers with ReLU, one logit an image: the log odds of the source.

    It has no norms, so that an image's logit depends on that image alone and several processes compute what
    one does.

    Args:
        inputs: of an image.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )


def domain_loss(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross entropy of a discriminator, the mean over 2B images; ln 2 where it cannot decide.

        -1 / (2B) (sum over source of w ln sigmoid(l) + sum over target of w ln sigmoid(-l))

    Args:
        logits: log odds of the source, [2B], the source images first.
        weights: w [2B] of the images; none: 1.
    """
    is_source = logits.new_zeros(len(logits))
    is_source[: len(logits) // 2] = 1
    return F.binary_cross_entropy_with_logits(logits, is_source, weight=weights)
