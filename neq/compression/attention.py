"""Attention blocks that are inserted behind layers by name.

- `se`: x * hardsigmoid(W2 relu(W1 mean(x)) + b); W2 = 0 and b = 3 at the start, where the gate is exactly 1,
  so that pretrained weights keep their outputs. Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR
  2018.
- `ulsam`: of each group of channels x + x * softmax(c), over positions, c = 1x1 to one channel(maxpool3(
  depthwise 1x1 x)): near the identity at the start, since a softmax over positions is small. Source: Saini et
  al., "ULSAM: Ultra-Lightweight Subspace Attention Module", WACV 2020.
- `lsas`: x * product over k = 0 .. order of sigmoid(u_k), with u_0 = W2 relu(W1 mean(x)) and
  u_k = a_k u_(k-1) + b_k for each channel; W2 = 0, a = .5, b = -.5 at the start, which scales by .1888
  (order 1): not the identity. Source: Zhong et al., "LSAS: Lightweight Sub-attention Strategy for Alleviating
  Attention Bias Problem", ICME 2023.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from neq.compression.changed import Compressed
from neq.networks.recipe import register_transform
from neq.utils.errors import UserError, unknown_name

# Name of a layer in the sequence that takes its place.
LAYER = "layer"
_REDUCTION = 4
_GROUPS = 4
_ORDER = 1


class SqueezeExcitation(nn.Module):
    """A gate for each channel, from the means of all channels.

    Args:
        channels: C of the maps [B, C, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, max(1, channels // _REDUCTION), 1)
        self.expand = nn.Conv2d(max(1, channels // _REDUCTION), channels, 1)
        nn.init.zeros_(self.expand.weight)
        assert self.expand.bias is not None
        nn.init.constant_(self.expand.bias, self.start)

    # Where hardsigmoid(b) = clamp(b / 6 + 1/2, 0, 1) is 1.
    start = 3.0

    def excitation(self, x_BCHW: Tensor) -> Tensor:
        """What the gates are made of, [B, C, 1, 1]."""
        excited: Tensor = self.expand(self.reduce(x_BCHW.mean((2, 3), keepdim=True)).relu())
        return excited

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The maps times their gates."""
        # hardsigmoid; torch's has no gradient at 3, where the block starts, and would never learn.
        gate = self.excitation(x_BCHW) / 6 + 0.5
        return x_BCHW * (gate - (gate - 1).relu()).relu()


class SubAttention(SqueezeExcitation):
    """Gates that are products of gates, each of the one before (LSAS).

    Args:
        channels: C of the maps [B, C, H, W].
    """

    start = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.factors = nn.Parameter(torch.full((_ORDER, channels, 1, 1), 0.5))
        self.offsets = nn.Parameter(torch.full((_ORDER, channels, 1, 1), -0.5))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The maps times their gates."""
        u = self.excitation(x_BCHW)
        gate = u.sigmoid()
        for k in range(_ORDER):
            u = self.factors[k] * u + self.offsets[k]
            gate = gate * u.sigmoid()
        return x_BCHW * gate


class SubspaceAttention(nn.Module):
    """A map of attention for each group of channels (ULSAM).

    Args:
        channels: C of the maps [B, C, H, W], a multiple of the groups.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = next(count for count in (_GROUPS, 2, 1) if channels % count == 0)
        self.depthwise = nn.Conv2d(channels, channels, 1, groups=channels)
        self.point = nn.Conv2d(channels, self.groups, 1, groups=self.groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The maps, and the maps times their attention."""
        pooled = nn.functional.max_pool2d(self.depthwise(x_BCHW), 3, stride=1, padding=1)
        attention = self.point(pooled).flatten(2).softmax(2)
        height, width = x_BCHW.shape[-2:]
        grouped = x_BCHW.unflatten(1, (self.groups, -1))
        return (grouped + grouped * attention.unflatten(2, (height, width))[:, :, None]).flatten(1, 2)


KINDS: Mapping[str, Callable[[int], nn.Module]] = {
    "se": SqueezeExcitation,
    "ulsam": SubspaceAttention,
    "lsas": SubAttention,
}


@register_transform("attention")
def attended(network: nn.Module, kind: str, layers: Mapping[str, int]) -> nn.Module:
    """Puts a block behind each of some layers, in place.

    Args:
        network: with these layers.
        kind: se, ulsam or lsas.
        layers: name of a layer -> its channels.

    Raises:
        ValueError: more channels than anything in the network has.
    """
    widest = max(size for parameter in network.parameters() for size in parameter.shape)
    for name, channels in layers.items():
        if not 0 < channels <= widest:
            raise ValueError(f"{name} has no {channels} channels")
        parts = OrderedDict({LAYER: network.get_submodule(name), "attention": KINDS[kind](channels)})
        network.set_submodule(name, nn.Sequential(parts))
    return network


def add_attention(start: Compressed, images: Tensor, kind: str, layers: Sequence[str]) -> Compressed:
    """The network with blocks behind some of its layers.

    Args:
        start: stays as it is.
        images: float32 [1, 3, S, S].
        kind: se, ulsam or lsas.
        layers: names of modules whose output is one tensor [B, C, H, W].

    Raises:
        UserError: an unknown kind or layer, or a layer with another output.
    """
    if kind not in KINDS:
        raise unknown_name("attention", kind, KINDS)
    known = dict(start.network.named_modules())
    channels: dict[str, int] = {}
    handles = []
    for name in layers:
        if not name or name not in known:
            raise unknown_name("layer", name, known)

        def keep(_m: nn.Module, _i: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                channels[name] = output.shape[1]

        handles.append(known[name].register_forward_hook(keep))
    with torch.no_grad():
        start.network(images)
    for handle in handles:
        handle.remove()
    if missing := [name for name in layers if name not in channels]:
        raise UserError(f"layer {missing[0]} has no output [B, C, H, W]; name a conv, a norm or a block")
    return start.by("attention", {}, kind=kind, layers=channels)
