"""Recomputing a layer's input in backward from tensors that the layer before it saves anyway."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from neq.backward.activations import Activation


@dataclass(frozen=True, eq=False)
class RecomputeSpec:
    """How to recompute an activation: act(scale y + shift).

    Args:
        y: saved for the backward of the layer that computed it [B, C, H, W].
        scale, shift: of the norm in between, [C]; None: the activation took y itself.
        activation: what followed.
    """

    y: Tensor
    scale: Tensor | None
    shift: Tensor | None
    activation: Activation


def mark_recomputable(out: Tensor, spec: RecomputeSpec) -> None:
    """Attaches to a tensor how to recompute it, as long as nothing changes it in place."""
    out._neq_recompute = (spec, out._version)  # type: ignore[attr-defined]


def recompute_spec(x: Tensor) -> RecomputeSpec | None:
    """How to recompute a tensor; None where it cannot be, or was changed in place since."""
    spec, version = getattr(x, "_neq_recompute", (None, None))
    return spec if version == x._version else None


def was_recomputable(x: Tensor) -> bool:
    """Whether a tensor could be recomputed when it was made, whatever changed it since."""
    return getattr(x, "_neq_recompute", None) is not None
