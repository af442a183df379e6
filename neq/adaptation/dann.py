"""DANN: features that a discriminator cannot assign to their domain.

    R = BCE(D(reversed(f)), is source)

D learns to tell the domains apart; the reversal makes the network learn the opposite. At the optimum the loss
is ln 2. Settings of the reversal: `neq.adaptation.reversal`.

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17, 2016, eq. 9-15.
"""

from __future__ import annotations

from torch import Tensor

from neq.adaptation.discriminator import Discriminator, domain_loss
from neq.adaptation.method import Both, Method
from neq.adaptation.reversal import reversed_gradient, strength_at


class Dann(Method):
    """The discriminator's loss on the features."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.discriminator = Discriminator(features)

    def forward(self, both: Both) -> Tensor:
        """R, []."""
        features = reversed_gradient(both.features, strength_at(both.progress))
        return domain_loss(self.discriminator(features).squeeze(1))
