"""Small float networks with every operation that int8 networks have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Excited(nn.Module):
    """Convolutions with norms, squeeze-and-excitation, a residual sum, pooling, and a hidden layer."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.expand, self.norm = nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16)
        self.depthwise, self.act = nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Hardswish()
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.hidden, self.classifier = nn.Linear(8, 12), nn.Linear(12, classes)

    def forward(self, x):
        x = self.pool(self.stem(x))
        y = self.act(self.norm(self.expand(x)))
        y = F.relu_(self.depthwise(y))
        scale = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))
        y = self.project(F.hardsigmoid(scale) * y)
        y += x
        pooled = y.relu().mean((2, 3))
        hidden = F.dropout(F.silu(self.hidden(pooled)), 0.2, self.training)
        return self.classifier(hidden)


def trained(network, side=16, seed=0):
    """A network whose norms have statistics of random images, weights of any scale, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.uniform_(-0.5, 1, generator=generator)
                module.momentum = None
        network.train()
        for _ in range(4):
            network(pictures(32, side, int(torch.randint(1000, (1,), generator=generator))))
    return network.eval()


def excited(seed=0):
    """`Excited` in eval mode; its weights are drawn by the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return trained(Excited(), seed=seed)


def pictures(count=24, side=16, seed=0):
    """Normalized images in -1 .. 1, float32 [count, 3, side, side], smooth as photos are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return F.interpolate(coarse, (side, side), mode="bilinear") * 2 - 1
