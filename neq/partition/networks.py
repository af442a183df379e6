"""Branched networks as modules, run by one process or a branch by each of two.

A network's forward runs its stem, both branches segment by segment, and its head. One device of two does so
with its own branch alone:

    x = network.stem(images)                               # on both
    for segment in network.model.segments:
        own = network.branches[rank](x, segment)           # [B, C, H, W]; `costs.sent` has the shape
        x = joined(segment.sync, [own, theirs] if rank == 0 else [theirs, own])
    logits = network.top(x)                                # where they are needed

Parameters of branch r are named `branches.r.`; all others are stem and head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neq.partition.model import Block, Blocks, Conv, Model, Segment

DROPOUT = 0.2


def joined(sync: str, outputs: Sequence[Tensor]) -> Tensor:
    """What both branches go on with behind a sync.

    Args:
        sync: `a` or `c`; empty where there is one branch.
        outputs: of the branches in order, [B, C, H, W] each.
    """
    if sync == "c":
        return torch.cat(list(outputs), 1)
    return outputs[0] + outputs[1] if sync == "a" else outputs[0]


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1); added to its input where shapes allow.

    Args:
        block: its channels, kernel and stride; its side is not used.
        act: name of the activation in torch.nn.
        momentum: of its batch norms.
    """

    def __init__(self, block: Block, act: str, momentum: float) -> None:
        super().__init__()
        hidden = block.expanded
        self.expand = _conv(Conv(block.in_channels, hidden, 1, 1), momentum) if block.expands else None
        self.depthwise = _conv(Conv(hidden, hidden, block.kernel, block.stride), momentum, groups=hidden)
        self.project = _conv(Conv(hidden, block.out_channels, 1, 1), momentum)
        self.act = getattr(nn, act)(inplace=True)
        self.skips = block.skips

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, [B, in, H, W]. Returns: [B, out, H', W']."""
        y = x if self.expand is None else self.act(self.expand(x))
        y = self.project(self.act(self.depthwise(y)))
        return x + y if self.skips else y


class Branch(nn.ModuleList):
    """The stages that one device runs.

    Args:
        stages: its blocks, stage by stage.
        act, momentum: as of `InvertedResidual`.
    """

    def __init__(self, stages: Sequence[Blocks], act: str, momentum: float) -> None:
        blocks = ([InvertedResidual(block, act, momentum) for block in stage] for stage in stages)
        super().__init__(nn.Sequential(*stage) for stage in blocks)

    def forward(self, x: Tensor, segment: Segment) -> Tensor:
        """What a segment of it returns.

        Args:
            x: what its first stage reads, [B, C, H, W].
            segment: of the network's model.
        """
        for number in range(segment.first, segment.stop):
            x = self[number](x)
        return x


class BranchedNetwork(nn.Module):
    """A network of one branch, or of two that synchronize.

    Args:
        model: its structure.
        classes: outputs of its classifier.

    Source: Kang et al., "SyncNAS", LCTES 2023.
    """

    def __init__(self, model: Model, classes: int = 1000) -> None:
        super().__init__()
        self.model = model
        act = getattr(nn, model.act)
        momentum = model.bn_momentum
        self.stem = nn.Sequential(*_conv(model.stem, momentum), act(inplace=True))
        self.branches = nn.ModuleList(
            Branch([stage[branch] for stage in model.stages], model.act, momentum)
            for branch in range(model.branches)
        )
        self.last_conv = nn.Sequential(*_conv(model.head, momentum), act(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(model.head.out_channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Args: x, normalized images [B, 3, H, W]. Returns: logits [B, classes]."""
        x = self.stem(x)
        inputs = [x for _ in self.branches]
        for segment in self.model.segments:
            outputs = [branch(y, segment) for branch, y in zip(self.branches, inputs, strict=True)]
            inputs = [joined(segment.sync, outputs)] * len(outputs)
        return self.top(inputs[0])

    def top(self, x: Tensor) -> Tensor:
        """What head and classifier make of the last sync's output, [B, C, H, W]: logits [B, classes]."""
        logits: Tensor = self.classifier(self.dropout(self.pool(self.last_conv(x)).flatten(1)))
        return logits

    def get_classifier(self) -> nn.Module:
        """The classifier, by the name that timm's networks have for it."""
        return self.classifier


def _conv(conv: Conv, momentum: float, groups: int = 1) -> nn.Sequential:
    """A convolution with its batch norm."""
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel,
        conv.stride,
        conv.kernel // 2,
        groups=groups,
        bias=False,
    )
    return nn.Sequential(made, nn.BatchNorm2d(conv.out_channels, momentum=momentum))
