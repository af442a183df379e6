"""Scores of a network on target images without labels, by which an epoch can be chosen; higher is better.

    IM = H(mean p) - mean H(p)
    SND = mean over i of H(softmax over j != i of cos(p_i, p_j) / .05)

Source: Liang et al., ICML 2020 (IM); Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain
Adaptation via Soft Neighborhood Density", ICCV 2021, eq. 1-3 (SND).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neq.adaptation.shot import information_loss
from neq.tasks.entropy import entropy

TEMPERATURE = 0.05


def information(outputs: Tensor) -> float:
    """IM in nats, 0 .. ln K.

    Args:
        outputs: logits, [n, K].
    """
    return -float(information_loss(outputs.double()))


def neighbourhood_density(outputs: Tensor) -> float:
    """SND in nats, 0 .. ln (n - 1).

    Args:
        outputs: logits, [n, K], of two images or more.
    """
    units = F.normalize(outputs.double().softmax(1), dim=1)
    total = outputs.new_zeros((), dtype=torch.float64)
    for first in range(0, len(units), 1024):  # rows in parts: n^2 values are many
        rows = units[first : first + 1024] @ units.T / TEMPERATURE
        keep = torch.ones_like(rows, dtype=torch.bool)
        keep[torch.arange(len(rows)), first + torch.arange(len(rows))] = False
        total += entropy(rows[keep].view(len(rows), -1)).sum()
    return float(total / len(units))
