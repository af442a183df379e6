"""Recomputing a layer's input in backward from tensors that the layers before it save anyway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RecomputeSpec:
    """How to recompute a tensor: compute(*kept).

    Args:
        kept: tensors that are saved for the backward of earlier layers, or are small.
        compute: of those.
        by_channel: channel c of the result needs channel c of them alone: each is a map [B, C, ...], the same
            for all channels [B, 1, ...], or a vector [C].
    """

    kept: tuple[Tensor, ...]
    compute: Callable[..., Tensor]
    by_channel: bool = True


def mark_recomputable(out: Tensor, spec: RecomputeSpec) -> None:
    """Attaches to a tensor how to recompute it, as long as nothing changes it in place."""
    out._neq_recompute = (spec, out._version)  # type: ignore[attr-defined]


def mark_kept(x: Tensor) -> None:
    """Notes that a tensor is saved whole for backward, so that others that read it need not copy parts."""
    if recompute_spec(x) is None:
        mark_recomputable(x, RecomputeSpec((x.detach(),), _itself))


def _itself(x: Tensor) -> Tensor:
    return x


def recompute_spec(x: Tensor) -> RecomputeSpec | None:
    """How to recompute a tensor, or what it is a view of; None where it cannot be, or was changed since."""
    base = x if _mark(x) is not None or x._base is None else x._base
    spec, version = _mark(base) or (None, None)
    if spec is None or version != base._version:
        return None
    return spec if base is x else _of_view(x, base, spec)


def mark_input(x: object) -> None:
    """Marks a tensor as an input of the network, which is there anyway until backward."""
    if isinstance(x, Tensor):
        x._neq_is_input = True  # type: ignore[attr-defined]


def is_input(x: Tensor) -> bool:
    """Whether a tensor is an input of the network."""
    return getattr(x, "_neq_is_input", False)


def was_recomputable(x: Tensor, by_channel: bool = False) -> bool:
    """Whether a tensor could be recomputed when it was made, whatever changed it since.

    Args:
        by_channel: some channels of it from the same channels of what is kept.
    """
    mark = _mark(x)
    if mark is None and x._base is not None:
        mark = None if by_channel else _mark(x._base)
    return mark is not None and (mark[0].by_channel or not by_channel)


def _mark(x: Tensor) -> tuple[RecomputeSpec, int] | None:
    return getattr(x, "_neq_recompute", None)


def _of_view(x: Tensor, base: Tensor, spec: RecomputeSpec) -> RecomputeSpec:
    whole, part = (base.shape, base.stride()), (x.shape, x.stride(), x.storage_offset())
    of_base = spec.compute  # not spec, which would hold what it keeps

    def compute(*kept: Tensor) -> Tensor:
        found = of_base(*kept)
        if found.stride() != whole[1]:
            found = torch.empty_strided(*whole, dtype=found.dtype, device=found.device).copy_(found)
        return found.as_strided(*part)

    return RecomputeSpec(spec.kept, compute, by_channel=False)
