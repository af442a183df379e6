"""Stand-ins by kind of layer: the modules that compute a plan's layers in place of the network's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from neq.backward.activations import Activation
from neq.backward.batch_norms import BatchStatsNorm, FrozenNorm
from neq.backward.conv import conv_stand_in, fused_conv_stand_in
from neq.backward.linear import linear_stand_in
from neq.backward.module_views import shadow
from neq.backward.trainable_layer import TrainableLayer
from neq.networks.layer_kinds import CONV, LINEAR, WHOLE, LayerKind
from neq.utils.errors import UserError

# The layer, what trains in it, the norm and activation that follow it, and whether the next layer keeps the
# result for its own backward.
Fuse = Callable[
    [nn.Module, TrainableLayer, FrozenNorm | BatchStatsNorm | None, Activation | None, bool], nn.Module
]


@dataclass(frozen=True)
class StandIn:
    """How a plan computes layers of one kind.

    A stand-in shares the layer's tensors (`module_views.shadow`), passes a gradient to the leaves in
    `TrainableLayer` and to its input, and saves for backward no more than these need. It reads the weight at
    every call: whatever stepped since is in it.

    Args:
        build: makes the stand-in of a layer alone.
        fuse: makes the stand-in of a layer with the batch norm and activation that follow it; None: they
            are computed one by one.
    """

    build: Callable[[nn.Module, TrainableLayer], nn.Module]
    fuse: Fuse | None = None


_stand_ins = {
    CONV.name: StandIn(conv_stand_in, fused_conv_stand_in),
    LINEAR.name: StandIn(linear_stand_in),
    WHOLE.name: StandIn(lambda module, trains: shadow(module, tuple(module._parameters))),
}


def register_stand_in(kind: LayerKind, stand_in: StandIn) -> None:
    """Adds the stand-in of a kind of layer.

    Raises:
        ValueError: the kind has another one.
    """
    if _stand_ins.setdefault(kind.name, stand_in) is not stand_in:
        raise ValueError(f"layer kind {kind.name!r} has a stand-in already")


def stand_in(kind: LayerKind) -> StandIn:
    """The stand-in of a kind of layer.

    Raises:
        UserError: none is registered.
    """
    found = _stand_ins.get(kind.name)
    if found is None:
        raise UserError(
            f"layer kind {kind.name!r} has no stand-in, so it cannot be trained; "
            "register one with neq.backward.register_stand_in"
        )
    return found
