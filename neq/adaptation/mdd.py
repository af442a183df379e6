"""MDD: a second head that agrees with the first one on the source and disagrees with it on the target.

    R = gamma CE(o'_s, argmax o_s) - mean log(1 - softmax(o'_t)[argmax o_t]),    gamma = 4

o' are logits of the second head, on reversed features: the network learns features on which no head can
disagree. Suggested: weight .1 on small networks, learning rate .004, weight decay 5e-4.

Source: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019, eq. 25-31.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from neq.adaptation.method import Both, Method
from neq.adaptation.reversal import reversed_gradient, strength_at

MARGIN = 4.0


class Mdd(Method):
    """The margin disparity of a second head, of two layers."""

    weight = 0.1

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.head = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, classes))

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        second = self.head(reversed_gradient(both.features, strength_at(both.progress)))
        images = len(second) // 2
        (_, source), (_, target) = both.source, both.target
        return disparity(second[:images], source, second[images:], target)


def disparity(second_source: Tensor, source: Tensor, second_target: Tensor, target: Tensor) -> Tensor:
    """R, [].

    Args:
        second_source, second_target: logits of the second head, [B, K].
        source, target: logits of the first, [B, K]; no gradient reaches them.
    """
    agreed = F.cross_entropy(second_source, source.argmax(1))
    # log(1 - softmax(o)[k]) = logsumexp over the others - logsumexp over all
    others = second_target.scatter(1, target.argmax(1, keepdim=True), -float("inf"))
    disagreed = second_target.logsumexp(1) - others.logsumexp(1)
    return MARGIN * agreed + disagreed.mean()
