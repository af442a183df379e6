"""Zero-cost scores of a network at random weights, to be held against its accuracy.

- `grad_norm`: the norm of the loss' gradient on one batch (Abdelfattah et al., ICLR 2021);
- `synflow`: sum |w dR/dw| with R the sum of the outputs of a network of absolute weights for an image of
  ones, in eval mode and float64, with ReLU in place of ReLU6, which would cut flows off (Tanaka et al.,
  NeurIPS 2020), as its logarithm.

Parameters and MACs are always beside them: a proxy is worth something where it ranks better than these.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.partition.costs import macs, parameters
from neq.partition.model import Model
from neq.partition.networks import BranchedNetwork
from neq.utils.seeds import seed_for


def scores(model: Model, images: Tensor, labels: Tensor, classes: int, seed: int = 0) -> dict[str, float]:
    """The scores of a network.

    Args:
        model: the network, at the size of the images.
        images: a batch as the network takes it, float32 [B, 3, S, S].
        labels: of the batch, int64 [B].
        classes: of the data set.
        seed: of the weights.
    """
    return {
        "parameters": float(parameters(model, classes)),
        "macs": float(macs(model, classes)),
        "grad_norm": grad_norm(_built(model, classes, seed), images, labels),
        "synflow": synflow(_built(replace(model, act="ReLU"), classes, seed), images.shape[-1]),
    }


def _built(model: Model, classes: int, seed: int) -> BranchedNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(seed, "network"))
        return BranchedNetwork(model, classes)


def grad_norm(network: BranchedNetwork, images: Tensor, labels: Tensor) -> float:
    """The norm of the gradient of the cross entropy, without dropout, by batch statistics."""
    network.train()
    network.dropout.eval()
    gradients = torch.autograd.grad(F.cross_entropy(network(images), labels), list(network.parameters()))
    return float(torch.linalg.vector_norm(torch.stack([each.norm() for each in gradients])))


def synflow(network: nn.Module, image_size: int) -> float:
    """log sum |w dR/dw|; the network's weights become their absolute values."""
    network.double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    own = list(network.parameters())
    total = network(torch.ones(1, 3, image_size, image_size, dtype=torch.float64)).sum()
    flows = torch.autograd.grad(total, own)
    with torch.no_grad():
        return math.log(sum(float((p * g).abs().sum()) for p, g in zip(own, flows, strict=True)))
