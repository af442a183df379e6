"""What a model costs: parameters, multiply-accumulates, and what its branches send at syncs.

The MACs of a block of side s, kernel k, stride t, of i, e and o channels in, expanded and out are

    [e != i] i e s^2 + (k^2 + o) e ceil(s / t)^2

Source: Kang et al., "SyncNAS", LCTES 2023.
"""

from __future__ import annotations

from neq.partition.model import Block, Conv, Model, Segment, parameters_without_classifier

CLASSES = 1000


def parameters(model: Model, classes: int = CLASSES) -> int:
    """The parameters of a network, those of norms and classifier too."""
    return parameters_without_classifier(model) + classes * (model.head.out_channels + 1)


def conv_weights(model: Model) -> tuple[int, int]:
    """How many convolutions a network has, and their weights."""
    count, weights = (
        2,
        sum(conv.in_channels * conv.out_channels * conv.kernel**2 for conv in (model.stem, model.head)),
    )
    for branch in range(model.branches):
        for block in model.blocks(branch):
            count += 2 + block.expands
            weights += block.expanded * (
                block.in_channels * block.expands + block.kernel**2 + block.out_channels
            )
    return count, weights


def macs(model: Model, classes: int = CLASSES) -> int:
    """The multiply-accumulates of one image through stem, all branches, head and classifier."""
    of_branches = sum(branch_macs(model, branch) for branch in range(model.branches))
    return stem_macs(model) + of_branches + head_macs(model, classes)


def block_macs(block: Block) -> int:
    """The multiply-accumulates of one image through a block."""
    expanding = block.in_channels * block.side**2 if block.expands else 0
    return block.expanded * (expanding + (block.kernel**2 + block.out_channels) * block.out_side**2)


def branch_macs(model: Model, branch: int, segment: Segment | None = None) -> int:
    """The multiply-accumulates of one image through the stages of a branch, of one segment or of all."""
    return sum(block_macs(block) for block in model.blocks(branch, segment))


def stem_macs(model: Model) -> int:
    """The multiply-accumulates of one image through the stem."""
    return _conv_macs(model.stem, model.stages[0][0][0].side)


def head_macs(model: Model, classes: int = CLASSES) -> int:
    """The multiply-accumulates of one image through the head and the classifier."""
    return _conv_macs(model.head, model.stages[-1][0][-1].out_side) + model.head.out_channels * classes


def sent(model: Model, segment: Segment, branch: int) -> tuple[int, int, int]:
    """The shape [C, H, W] of what a branch sends for one image at the sync behind a segment."""
    last = model.stages[segment.stop - 1][branch][-1]
    return last.out_channels, last.out_side, last.out_side


def sent_bytes(model: Model, segment: Segment, branch: int) -> int:
    """The bytes that a branch sends for one image at the sync behind a segment, in float32."""
    channels, height, width = sent(model, segment, branch)
    return 4 * channels * height * width


def _conv_macs(conv: Conv, out_side: int) -> int:
    return conv.in_channels * conv.out_channels * conv.kernel**2 * out_side**2
