"""Branched networks of one base trained at once: their tensors stacked, narrower ones padded and masked.

All maps are small, so that a depthwise convolution is a product with a matrix over pixels, and every layer a
batched product over strategies and branches (shape letters: K strategies, 2 branches, E, C, O channels, B
images, P pixels). A sync is a choice between a branch's own output and the sum, where `c` puts each branch's
channels into its half of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.networks.heads import replace_head
from neq.partition import Model
from neq.partition.networks import DROPOUT, BranchedNetwork
from neq.utils.seeds import generator, seed_for

EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 8, 50, 0.1, 0.9, 1e-4


def built(model: Model, classes: int, seed: int) -> BranchedNetwork:
    """The network of a model as a run of that seed starts."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(seed, "network"))
        network = BranchedNetwork(model, classes)
        replace_head(network, classes)
    return network


class _Norm(nn.Module):
    """Batch norms of K x 2 branches: over images and pixels of maps [K, 2, C, B, P]; 0 where the mask is."""

    mask: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        count = mask.numel()
        self.weight, self.bias = nn.Parameter(torch.ones(count)), nn.Parameter(torch.zeros(count))
        self.register_buffer("mask", mask.flatten())
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("variance", torch.ones(count))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, [K, 2, C, B, P]."""
        maps = x.reshape(1, -1, *x.shape[-2:])
        weight, bias = self.mask * self.weight, self.mask * self.bias
        out = F.batch_norm(maps, self.mean, self.variance, weight, bias, self.training)
        return out.view(x.shape)


class _Stage(nn.Module):
    """A block of each branch of each strategy, and the sync behind it."""

    taps: Tensor
    skips: Tensor
    own: Tensor

    def __init__(self, blocks: Sequence[Sequence[nn.Module]], models: Sequence[Model], stage: int) -> None:
        super().__init__()
        whole = models[0].stages[stage][0][0]
        shapes = [[of_branch[0] for of_branch in model.stages[stage]] for model in models]
        kinds = [model.sync[stage] for model in models if model.sync is not None]
        out = max(
            shape.out_channels * (2 if kind == "c" else 1)
            for pair, kind in zip(shapes, kinds, strict=True)
            for shape in pair
        )
        wide = max(shape.expanded for pair in shapes for shape in pair)
        count, channels = len(blocks), whole.in_channels
        expand, spatial = torch.zeros(count, 2, wide, channels), torch.zeros(count, 2, wide, 9)
        project = torch.zeros(count, 2, out, wide)
        hidden, made = torch.zeros(count, 2, wide), torch.zeros(count, 2, out)
        for number, pair in enumerate(blocks):
            for branch, block in enumerate(pair):
                width, own_out = shapes[number][branch].expanded, shapes[number][branch].out_channels
                at = branch * own_out if kinds[number] == "c" else 0
                state = block.state_dict()
                expand[number, branch, :width] = state["expand.0.weight"].flatten(1)
                spatial[number, branch, :width] = state["depthwise.0.weight"].flatten(1)
                project[number, branch, at : at + own_out, :width] = state["project.0.weight"].flatten(1)
                hidden[number, branch, :width] = 1
                made[number, branch, at : at + own_out] = 1
        self.expand, self.spatial, self.project = map(nn.Parameter, (expand, spatial, project))
        self.norms = nn.ModuleList([_Norm(hidden), _Norm(hidden), _Norm(made)])
        self.register_buffer("taps", _taps(whole.side, whole.stride))
        skips = torch.tensor([[float(shape.skips) for shape in pair] for pair in shapes])
        self.register_buffer("skips", skips.view(count, 2, 1, 1, 1))
        self.has_skips = bool(skips.any())
        own = torch.tensor([float(kind == "n") for kind in kinds])
        self.register_buffer("own", own.view(count, 1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, [K, 2, C, B, P]. Returns: [K, 2, O, B, P']."""
        count, _, channels, images, pixels = x.shape
        hidden = (self.expand @ x.reshape(count, 2, channels, -1)).view(count, 2, -1, images, pixels)
        hidden = F.relu6(self.norms[0](hidden))
        matrices = (self.spatial @ self.taps.flatten(1)).view(count, 2, -1, *self.taps.shape[1:])
        hidden = F.relu6(self.norms[1](hidden @ matrices))
        wide = hidden.shape[2]
        y = (self.project @ hidden.reshape(count, 2, wide, -1)).view(count, 2, -1, images, hidden.shape[-1])
        y = self.norms[2](y)
        if self.has_skips:
            y = torch.addcmul(y, x, self.skips)
        both = y.sum(1, keepdim=True)
        return both + self.own * (y - both)


def _taps(side: int, stride: int) -> Tensor:
    """The nine matrices [9, P, P'] that sum, by weight, to a 3x3 convolution of maps of a side."""
    pixels = torch.eye(side * side).view(-1, 1, side, side)
    kernels = torch.eye(9).view(9, 1, 3, 3)
    return F.conv2d(pixels, kernels, stride=stride, padding=1).flatten(2).permute(1, 0, 2).contiguous()


def _block(branch: nn.Module, stage: int) -> nn.Module:
    return branch.get_submodule(f"{stage}.0")


class Stack(nn.Module):
    """Branched networks of one base, whose stages have one block each.

    Args:
        networks: two or more; they are not changed.
    """

    def __init__(self, networks: Sequence[BranchedNetwork]) -> None:
        super().__init__()
        models = [network.model for network in networks]
        states = [network.state_dict() for network in networks]

        def stacked(name: str) -> nn.Parameter:
            return nn.Parameter(torch.stack([state[name].flatten(1) for state in states]))

        self.stem, self.last = stacked("stem.0.weight"), stacked("last_conv.0.weight")
        self.stem_norm = _Norm(torch.ones(len(networks), 1, models[0].stem.out_channels))
        self.stages = nn.ModuleList(
            _Stage([[_block(branch, stage) for branch in each.branches] for each in networks], models, stage)
            for stage in range(len(models[0].stages))
        )
        self.last_norm = _Norm(torch.ones(len(networks), 1, models[0].head.out_channels))
        self.weight = stacked("classifier.weight")
        self.bias = nn.Parameter(torch.stack([each.classifier.bias for each in networks]))

    def forward(self, images: Tensor) -> Tensor:
        """Args: images, [B, 3, H, W]. Returns: logits [K, B, classes]."""
        patches = F.unfold(images, 3, padding=1, stride=2)  # [B, 27, P]
        count, (batch, taps, pixels) = len(self.stem), patches.shape
        x = self.stem @ patches.permute(1, 0, 2).reshape(taps, -1)
        x = F.relu6(self.stem_norm(x.view(count, 1, -1, batch, pixels)))
        x = x.expand(-1, 2, -1, -1, -1)
        for stage in self.stages:
            x = stage(x)
        x = x[:, 0]
        x = (self.last @ x.flatten(2)).view(count, 1, -1, batch, x.shape[-1])
        x = F.relu6(self.last_norm(x))[:, 0].mean(-1).transpose(1, 2)
        return torch.baddbmm(self.bias[:, None], F.dropout(x, DROPOUT, self.training), self.weight.mT)


def trained(
    models: Sequence[Model], images: Tensor, labels: Tensor, count: int, seed: int
) -> list[tuple[float, float]]:
    """Trains networks; returns of each top-1 in % and cross entropy on the images that are not trained on.

    Args:
        models: branched networks of one base.
        images, labels: all of them.
        count: how many are trained on, from the first on.
        seed: of weights, batches and dropout.
    """
    network = Stack([built(model, int(labels.max()) + 1, seed) for model in models])
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY, foreach=True)
    stream, steps, step = generator(seed, "batches"), EPOCHS * (count // BATCH), 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(seed, "dropout"))
        for _ in range(EPOCHS):
            for batch in torch.randperm(count, generator=stream).split(BATCH):
                warm = min(1.0, (step + 1) / (0.1 * steps))
                for group in optimizer.param_groups:
                    group["lr"] = RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
                logits = network(images[batch])
                targets = labels[batch].repeat(len(models))
                loss = F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / len(batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(part) for part in images[count:].split(200)], 1)
    truth = labels[count:]
    top1 = (logits.argmax(-1) == truth).double().mean(1)
    losses = [float(F.cross_entropy(each, truth)) for each in logits]
    return [(100 * float(right), loss) for right, loss in zip(top1, losses, strict=True)]
