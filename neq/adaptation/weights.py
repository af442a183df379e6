"""The weight of an image by how sure the network is of it: w = (1 + e^-H(p)) / mean, whose mean is 1.

Source: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018, eq. 8; Jin et al., "Minimum
Class Confusion for Versatile Domain Adaptation", ECCV 2020, eq. 4.
"""

from __future__ import annotations

from torch import Tensor

from neq.adaptation.method import Mean
from neq.tasks.entropy import entropy


def certainty_weights(outputs: Tensor, mean: Mean = lambda value: value) -> Tensor:
    """w [n], without a gradient.

    Args:
        outputs: logits, [n, K].
        mean: over the whole batch.
    """
    raw = 1 + (-entropy(outputs.detach())).exp()
    return raw / mean(raw.mean())
