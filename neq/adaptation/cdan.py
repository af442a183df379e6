"""CDAN: features that a discriminator cannot assign to their domain, given what the network predicts.

    R = BCE(D(p x reversed(f)), is source),    (p x f)_kd = p_k f_d,    p = softmax(o) without a gradient

CDAN+E weights each image by `certainty_weights`. With many classes the outer product [2B, K F] is large.

Source: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018, eq. 3, 5 and 8.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from neq.adaptation.discriminator import Discriminator, domain_loss
from neq.adaptation.method import Both, Method
from neq.adaptation.reversal import reversed_gradient, strength_at
from neq.adaptation.weights import certainty_weights


class Cdan(Method):
    """The discriminator's loss on the outer product of predictions and features."""

    weighs: ClassVar[bool] = False

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.discriminator = Discriminator(features * classes)

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        features = reversed_gradient(both.features, strength_at(both.progress))
        logits = self.discriminator(outer(both.outputs.detach().softmax(1), features)).squeeze(1)
        return domain_loss(logits, certainty_weights(both.outputs, both.mean) if self.weighs else None)


class CdanE(Cdan):
    """CDAN+E."""

    weighs = True


def outer(p: Tensor, f: Tensor) -> Tensor:
    """p_k f_d of each image, [n, K d].

    Args:
        p: [n, K].
        f: [n, d].
    """
    return torch.einsum("nk,nd->nkd", p, f).flatten(1)
