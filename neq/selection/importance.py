"""Importance of neurons, from gradients: the criteria by which policies buy or draw neurons.

With the weights w_i of neuron i, the gradient g_i of the loss of all measured images with respect to them,
g_{b,i} that of batch b out of B, and g_{n,i} that of image n out of N:

    gradient_norm       |g_i|
    loss_decrease       |g_i|^2
    squared_gradient    1/B sum_b |g_{b,i}|^2
    relative_gradient   |g_i| / |w_i|
    fisher              1/(2N) sum_n (w_i . g_{n,i})^2

A step of SGD at a small rate r on neurons S lowers the loss by r sum_{i in S} |g_i|^2, so it adds up
over neurons.

Without a bias, w_i . g_{n,i} is the sum over positions d of a_{n,d} dL_n/da_{n,d} for the neuron's output a,
whose squares TinyTrain sums.

Source: TraDy (gradient norms), arXiv 2510.19675; Lee et al. (relative gradient norm), arXiv 2210.11466;
TinyTrain (Fisher information of activations), arXiv 2307.09988.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor

# Whose gradient a score is of: that of all images, of each batch, or of each image; the scores are averaged.
Sample = Literal["all", "batch", "image"]


@dataclass(frozen=True)
class Criterion:
    """One way to score the neurons of a layer.

    Args:
        sample: whose gradient it looks at.
        score: (weights, gradients), each [n, weights of a neuron], -> [n].
    """

    sample: Sample
    score: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Importance:
    """What was measured before an epoch.

    Args:
        neurons: score of each neuron by the run's criterion, float64 [N]; 0 for one that cannot be afforded.
        layer_bytes: training memory of each layer with all of its neurons, float64 [L]: gradients, optimizer
            state and its kept input; what its depth costs in layers behind it is not counted.
    """

    neurons: Tensor
    layer_bytes: Tensor


def _relative(weights: Tensor, gradients: Tensor) -> Tensor:
    norms = weights.norm(dim=1)
    return gradients.norm(dim=1) / norms.where(norms > 0, 1)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "gradient_norm": Criterion("all", lambda weights, gradients: gradients.norm(dim=1)),
        "loss_decrease": Criterion("all", lambda weights, gradients: gradients.square().sum(1)),
        "squared_gradient": Criterion("batch", lambda weights, gradients: gradients.square().sum(1)),
        "relative_gradient": Criterion("all", _relative),
        "fisher": Criterion("image", lambda weights, gradients: (weights * gradients).sum(1).square() / 2),
    }
)
