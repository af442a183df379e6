"""Weights of source images under a shift of the covariates, or of the labels.

Covariate shift: with d = P(source given x) of a domain classifier on features, held out,

    w = (1 - d) / d * n_s / n_t

Label shift (BBSE): with the joint confusion C_ij = P(prediction i, label j) on held-out source images and the
shares mu_i of the predictions on the target, C w = mu.

Source: Sugiyama et al., "Covariate Shift Adaptation by Importance Weighted Cross Validation", JMLR 8, 2007;
Lipton et al., "Detecting and Correcting for Label Shift with Black Box Predictors", ICML 2018, eq. 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def domain_ratio(d: Tensor, source_images: int, target_images: int) -> Tensor:
    """w [n], neither clipped nor normalized.

    Args:
        d: probabilities of the source, [n], in (0, 1).
        source_images, target_images: n_s and n_t, that the classifier was fitted to.
    """
    return (1 - d) / d * source_images / target_images


def label_ratio(confusion: Tensor, predicted: Tensor) -> Tensor:
    """w [K], the target's share of each class over the source's; negative solutions become 0.

    Args:
        confusion: C [K, K], of prediction and label.
        predicted: mu [K].

    Raises:
        ValueError: C is singular: some classes are not told apart.
    """
    solution, failed = torch.linalg.solve_ex(confusion, predicted)
    if failed or not solution.isfinite().all():
        raise ValueError("the confusion matrix is singular: the network does not tell some classes apart")
    return solution.clamp_min(0)


def normalized(weights: Tensor, most: float) -> Tensor:
    """Weights clipped to at most `most`, then divided by their mean."""
    clipped = weights.clamp_max(most)
    return clipped / clipped.mean()


def effective_images(weights: Tensor) -> float:
    """(sum w)^2 / sum w^2: how many images of equal weights vary as little."""
    return float(weights.sum().square() / weights.square().sum())
