"""Low rank: a layer's weights as the product of smaller layers'.

- `svd`, of a Linear or a 1x1 conv: W ~ (U_r S_r) V_r^T, two layers. It pays below rank o i / (o + i).
- `tucker2`, of a dense k x k conv: W_oikl ~ sum_pq A_op C_pqkl B_iq, three convs: 1x1, k x k, 1x1.
- `cp`, of a dense k x k conv: W_oikl ~ sum_r A_or B_ir C_kr D_lr, four convs: 1x1, k x 1 and 1 x k (both
  depthwise), 1x1. The decomposition is unstable: the best one may not exist.

Depthwise and other grouped convs stay as they are, and so does the head.
Source: Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications", ICLR 2016 (Tucker-2); Lebedev et al., "Speeding-up Convolutional Neural Networks Using
Fine-tuned CP-Decomposition", ICLR 2015.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from neq.compression.changed import Compressed
from neq.networks.recipe import register_transform
from neq.utils.errors import UserError

# Of a window along an axis where it is one value wide: kernel_size, stride, padding, dilation.
_NEUTRAL = (1, 1, 0, 1)


@register_transform("low_rank")
def factorized(network: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Replaces layers by sequences of smaller ones, with random weights, in place.

    Args:
        network: with these layers.
        layers: name of a layer -> `kind` (svd, tucker2, cp) and `ranks`, one of them or, of tucker2, that of
            the inputs and that of the outputs.

    Raises:
        ValueError: a layer would grow.
    """
    for name, how in layers.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        with torch.device("meta"):
            size = sum(each.numel() for each in _sequence(layer, how["kind"], how["ranks"]).parameters())
        if size > sum(each.numel() for each in layer.parameters()):
            raise ValueError(f"{name} would grow to {size} weights")
        network.set_submodule(name, _sequence(layer, how["kind"], how["ranks"]))
    return network


def low_rank(start: Compressed, share: float, dense: str = "tucker2") -> Compressed:
    """Factorizes every layer whose factors have at most a share of its weights.

    Args:
        start: stays as it is.
        share: of each layer's weights, above 0 and below 1.
        dense: how dense k x k convs are factorized, tucker2 or cp.

    Raises:
        UserError: tensorly is not installed, or no layer can be factorized.
    """
    if find_spec("tensorly") is None:
        raise UserError("low rank needs tensorly, which is not installed; pip install 'neq[compression]'")
    layers: dict[str, dict[str, Any]] = {}
    values: dict[str, Tensor] = {}
    for name, layer in start.network.named_modules():
        kind = _kind(layer, dense)
        if kind is None or name == start.recipe.head:
            continue
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        ranks = _ranks(layer.weight.shape, kind, share)
        if ranks is None:
            continue
        layers[name] = {"kind": kind, "ranks": ranks}
        factors = _factors(layer.weight.detach().double(), kind, ranks)
        for number, factor in enumerate(factors):
            values[f"{name}.{number}.weight"] = factor.to(layer.weight.dtype)
        if layer.bias is not None:
            values[f"{name}.{len(factors) - 1}.bias"] = layer.bias.detach()
    if not layers:
        raise UserError(f"no layer can be factorized to a share of {share:g}; give a larger one")
    return start.by("low_rank", values, layers=layers)


def _kind(layer: nn.Module, dense: str) -> str | None:
    """How a layer is factorized; none where it is not."""
    if type(layer) is nn.Linear:
        return "svd"
    if type(layer) is not nn.Conv2d or layer.groups != 1 or layer.padding_mode != "zeros":
        return None
    if isinstance(layer.padding, str):
        return None
    return "svd" if layer.kernel_size == (1, 1) else dense


def _ranks(shape: Sequence[int], kind: str, share: float) -> list[int] | None:
    """The largest ranks whose factors have at most a share of the weights; none where rank 1 is too large.

    Args:
        shape: of the weight, [o, i] or [o, i, k, l].
        kind: svd, tucker2 or cp.
        share: of the weights.
    """
    outputs, inputs, *kernel = shape
    allowed = share * math.prod(shape)
    if kind == "tucker2":
        # Ranks s i and s o: (i^2 + o^2) s + o i k l s^2 weights.
        linear, square = inputs**2 + outputs**2, math.prod(shape)
        part = (math.sqrt(linear**2 + 4 * square * allowed) - linear) / (2 * square)
        ranks = [int(part * inputs), int(part * outputs)]
    else:
        axes = (outputs, inputs, *kernel) if kind == "cp" else (outputs, inputs)
        ranks = [int(allowed / sum(axes))]
    return ranks if min(ranks) else None


def _sequence(layer: nn.Conv2d | nn.Linear, kind: str, ranks: Sequence[int]) -> nn.Sequential:
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first: nn.Module = nn.Linear(layer.in_features, ranks[0], bias=False)
        return nn.Sequential(first, nn.Linear(ranks[0], layer.out_features, bias=has_bias))
    window = [_pairs(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")]
    rows = [(row, neutral) for (row, _), neutral in zip(window, _NEUTRAL, strict=True)]
    columns = [(neutral, column) for (_, column), neutral in zip(window, _NEUTRAL, strict=True)]
    first = nn.Conv2d(layer.in_channels, ranks[0], 1, bias=False)
    middle: list[nn.Module] = []
    if kind == "svd":  # the stride comes first: it leaves less to compute
        first = _conv(layer.in_channels, ranks[0], window)
    elif kind == "tucker2":
        middle = [_conv(ranks[0], ranks[1], window)]
    else:
        middle = [_conv(ranks[0], ranks[0], way, groups=ranks[0]) for way in (rows, columns)]
    return nn.Sequential(first, *middle, nn.Conv2d(ranks[-1], layer.out_channels, 1, bias=has_bias))


def _conv(inputs: int, outputs: int, window: Sequence[tuple[int, int]], groups: int = 1) -> nn.Conv2d:
    kernel_size, stride, padding, dilation = window
    return nn.Conv2d(inputs, outputs, kernel_size, stride, padding, dilation, groups, bias=False)


def _pairs(layer: nn.Conv2d, key: str) -> tuple[int, int]:
    """A setting of a conv for rows and columns."""
    value = getattr(layer, key)
    assert isinstance(value, tuple), "`_kind` leaves convs with padding by name out"
    return (value[0], value[1])


def _factors(weight: Tensor, kind: str, ranks: Sequence[int]) -> list[Tensor]:
    """The weights of the smaller layers, in their order, float64.

    Args:
        weight: float64 [o, i] or [o, i, k, l].
        kind: svd, tucker2 or cp.
        ranks: of the factors.
    """
    if kind == "svd":
        left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
        (rank,) = ranks
        root = values[:rank].sqrt()  # shared by both, so that they train alike
        axes = weight.dim() * [1]
        first, second = root[:, None] * right[:rank], left[:, :rank] * root
        return [first.view(*first.shape, *axes[2:]), second.view(*second.shape, *axes[2:])]
    import tensorly
    from tensorly.decomposition import parafac, partial_tucker

    with tensorly.backend_context("pytorch"), warnings.catch_warnings(action="ignore"):
        if kind == "tucker2":
            (core, factors), _ = partial_tucker(weight, rank=[*reversed(ranks)], modes=[0, 1])
            outputs, inputs = factors
            return [inputs.T[:, :, None, None], core, outputs[:, :, None, None]]
        (rank,) = ranks
        scales, (outputs, inputs, rows, columns) = parafac(weight, rank, init="random", random_state=0)
        outputs = outputs * scales
    return [
        inputs.T[:, :, None, None],
        rows.T[:, None, :, None],
        columns.T[:, None, None, :],
        outputs[:, :, None, None],
    ]
