"""A plain network branched: which blocks its two branches have, and the model that their widths make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from neq.partition.model import Blocks, Model, Stage
from neq.utils.errors import UserError


def branch_stages(base: Model, sync: Sequence[str]) -> tuple[Blocks, ...]:
    """The blocks that each of two branches has, stage by stage, with the base's widths.

    They are the base's, but for the last block of a stage with a sync `c`, which makes half of the channels.

    Args:
        base: a plain network.
        sync: behind each stage.

    Raises:
        UserError: a branched base, or an odd number of channels behind a stage with `c`.
    """
    if base.sync is not None:
        raise UserError(f"network {base.name} has two branches already; give one without")
    stages = []
    for number, ((blocks,), kind) in enumerate(zip(base.stages, sync, strict=True)):
        if kind == "c":
            out, odd = divmod(blocks[-1].out_channels, 2)
            if odd or not out:
                raise UserError(
                    f"stage {number} of {base.name} has {2 * out + odd} channels: c needs an even number"
                )
            blocks = (*blocks[:-1], replace(blocks[-1], out_channels=out))
        stages.append(blocks)
    return tuple(stages)


def branched(
    base: Model,
    sync: Sequence[str],
    widths: Sequence[Sequence[Sequence[int]]],
    name: str,
    bn_momentum: float | None = None,
) -> Model:
    """A plain network branched.

    Args:
        base: a plain network.
        sync: behind each stage.
        widths: expanded channels by branch, stage and block.
        name: of the result.
        bn_momentum: of the result; None: the base's.

    Raises:
        UserError: as of `branch_stages`, or widths that fit no network.
    """
    stages = branch_stages(base, sync)

    def stage(number: int) -> Stage:
        return tuple(
            tuple(
                replace(block, expanded=width)
                for block, width in zip(stages[number], of_branch[number], strict=True)
            )
            for of_branch in widths
        )

    momentum = base.bn_momentum if bn_momentum is None else bn_momentum
    made = tuple(stage(number) for number in range(len(stages)))
    return replace(base, name=name, bn_momentum=momentum, stages=made, sync=tuple(sync))
