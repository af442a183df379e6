"""SHOT: information maximization and pseudo labels on the target, without source images.

    R = mean H(p) - H(mean p) + .3 CE(o_t, pseudo label)

Pseudo labels are made anew each round: the class whose centroid is nearest by cosine, where centroids are
means of features weighted by p, then once more means over the images that they label. The head stays frozen.

Source: Liang et al., "Do We Really Need to Access the Source Data? Source Hypothesis Transfer for
Unsupervised Domain Adaptation", ICML 2020, eq. 3-7.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neq.adaptation.method import Mean
from neq.tasks.entropy import entropy

LABEL_WEIGHT = 0.3


def information_loss(outputs: Tensor, mean: Mean = lambda value: value) -> Tensor:
    """mean H(p) - H(mean p), [].

    Args:
        outputs: logits of this process' share, [B, K].
        mean: over the whole batch.
    """
    of_all = mean(outputs.softmax(1).mean(0))
    return entropy(outputs).mean() + torch.special.xlogy(of_all, of_all).sum()


def pseudo_labels(features: Tensor, p: Tensor) -> Tensor:
    """The class of the nearest centroid, int64 [n].

    A class that labels no image in the first round has no centroid in the second.

    Args:
        features: [n, F], of all target images.
        p: probabilities, [n, K].
    """
    units = F.normalize(features, dim=1)
    assigned, has_images = p, torch.ones(p.shape[1], dtype=torch.bool, device=p.device)
    labels = p.argmax(1)
    for _ in range(2):
        centroids = F.normalize(assigned.T @ units, dim=1)
        cosines = (units @ centroids.T).masked_fill(~has_images, -float("inf"))
        labels = cosines.argmax(1)
        assigned = F.one_hot(labels, p.shape[1]).to(p.dtype)
        has_images = assigned.sum(0) > 0
    return labels
