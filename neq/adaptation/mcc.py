"""MCC: target predictions that confuse no class with another.

    P = softmax(o_t / T) [B, K],    C = P^T diag(w) P,    R = (sum C' - trace C') / K

C' is C with rows that sum to 1, w the `certainty_weights` of o_t / T. T = 2.5. It has no second network, and
compares no domains.

Source: Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020, eq. 2-6.
"""

from __future__ import annotations

from torch import Tensor

from neq.adaptation.method import Mean, Method
from neq.adaptation.weights import certainty_weights

TEMPERATURE = 2.5


class Mcc(Method):
    """The class confusion of the target predictions."""

    compares = False

    def of_target(self, outputs: Tensor, mean: Mean) -> Tensor:
        """R, []."""
        return class_confusion(outputs, TEMPERATURE, mean)


def class_confusion(outputs: Tensor, temperature: float, mean: Mean = lambda value: value) -> Tensor:
    """R, [].

    Args:
        outputs: logits of this process' share, [B, K].
        temperature: T.
        mean: over the whole batch.
    """
    scaled = outputs / temperature
    p, weights = scaled.softmax(1), certainty_weights(scaled, mean)
    confusion = mean(p.T @ (weights[:, None] * p) / len(p))
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / len(confusion)
