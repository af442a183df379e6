"""Quantizes a float network: its weights by channel, its activations as calibrated on some images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neq.int8.calibrate import METHODS, observe, quantization
from neq.int8.description import (
    HIGHEST,
    HIGHEST_BIAS,
    IMAGE,
    LARGEST_WEIGHT,
    LOWEST,
    LOWEST_BIAS,
    Conv,
    Description,
    Images,
    Linear,
    MaxPool,
    Operation,
    Pool,
    Quantization,
    Table,
)
from neq.int8.float_network import EVERYWHERE, FloatNetwork, FloatOperation
from neq.int8.network import Int8Network
from neq.int8.trace import read_network
from neq.utils.errors import UserError

# Of the images, those that agreement is measured on; the others are calibrated on.
_HELD_OUT = 4
_BATCH = 16
# Names that a part of Int8Network has; a layer of that name gets another one.
_TAKEN = {*dir(nn.Module), *vars(Int8Network), "image", "images", "classes", "steps", "head"}


@dataclass(frozen=True)
class Agreement:
    """How well an int8 network agrees with its float network on some images.

    Args:
        cosine: mean cosine of their outputs.
        same: share of the images for which the largest output is the same.
    """

    cosine: float
    same: float


@dataclass(frozen=True)
class Quantized:
    """An int8 network, and how it was chosen.

    Args:
        network: the int8 network.
        method: of calibration.
        agreements: of each method that was tried, by name.
    """

    network: Description
    method: str
    agreements: Mapping[str, Agreement]


def quantize(
    network: nn.Module, images: Tensor, made_for: Images, classes: tuple[str, ...] = ()
) -> Quantized:
    """Quantizes a float network, by the way of calibration that agrees with it best.

    Three quarters of the images are calibrated on; agreement is measured on the rest.

    Args:
        network: images [B, 3, H, W] -> outputs [B, classes], on the CPU.
        images: normalized, [N, 3, S, S], N >= 2. Their labels are not needed.
        made_for: size and normalization of the images.
        classes: names of the outputs.

    Raises:
        UserError: too few images, or a network that int8 networks cannot compute.
    """
    if isinstance(network, Int8Network):  # which is one already
        described = replace(network.describe(), images=made_for, classes=classes)
        return Quantized(described, "none", {})
    if len(images) < 2:
        raise UserError(
            f"{len(images)} image is too few to calibrate on; give 2 or more, some hundreds are good"
        )
    found = read_network(network, made_for.size)
    held_out = torch.arange(len(images)) % min(_HELD_OUT, len(images)) == 0
    values = observe(found, images[~held_out], _BATCH)
    outputs = torch.cat([found.run(batch) for batch in images[held_out].split(_BATCH)])
    agreements, networks = {}, {}
    for method, choose in METHODS.items():
        results = {name: quantization(*choose(each)) for name, each in _read_values(found, values).items()}
        networks[method] = description(found, results, made_for, classes)
        agreements[method] = agreement(Int8Network(networks[method]), images[held_out], outputs)
    best = max(agreements, key=lambda method: agreements[method].cosine)
    return Quantized(networks[best], best, agreements)


@torch.no_grad()
def agreement(network: nn.Module, images: Tensor, outputs: Tensor) -> Agreement:
    """How well an int8 network agrees with a float one.

    Args:
        network: the int8 network.
        images: normalized, [N, 3, S, S].
        outputs: of the float network, [N, classes].
    """
    batches = images.contiguous(memory_format=torch.channels_last).split(_BATCH)
    found = torch.cat([network(batch) for batch in batches])
    same = (found.argmax(1) == outputs.argmax(1)).double().mean()
    return Agreement(float(F.cosine_similarity(found, outputs).double().mean()), float(same))


def description(
    network: FloatNetwork,
    results: Mapping[str, Quantization],
    made_for: Images,
    classes: tuple[str, ...] = (),
) -> Description:
    """The int8 network of a float one.

    Args:
        network: the float network.
        results: quantization of each operation's result.
        made_for: size and normalization of the images.
        classes: names of the outputs.

    Raises:
        UserError: operations that do not fit together.
    """
    names, made = {IMAGE: IMAGE}, {IMAGE: image_quantization(made_for)}
    operations = []
    for each in network.operations:
        given = made[each.inputs[0]]
        # The results of pooling keep the codes of its input.
        output = made[each.name] = given if each.kind in (Pool, MaxPool) else results[each.name]
        names[each.name] = _free(each.name)
        inputs = tuple(names[name] for name in each.inputs)
        operations.append(_operation(each, names[each.name], inputs, given, output))
    head = network.head
    assert head.weight is not None
    assert head.bias is not None
    linear = Linear(
        _free(head.name), tuple(names[each] for each in head.inputs), head.weight.flatten(1), head.bias
    )
    try:
        return Description(made[IMAGE], tuple(operations), linear, made_for, classes)
    except ValueError as error:
        raise UserError(f"the network cannot be quantized: {error}; take another network") from None


def image_quantization(made_for: Images) -> Quantization:
    """The quantization of normalized images, whose channels have one scale."""
    ends = [
        (pixel - mean) / std
        for mean, std in zip(made_for.mean, made_for.std, strict=True)
        for pixel in (0, 1)
    ]
    return quantization(min(ends), max(ends))


def _read_values(network: FloatNetwork, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values as far as they matter: what a table alone reads matters where its function varies."""
    readers = Counter(name for each in (*network.operations, network.head) for name in each.inputs)
    ranges = {each.inputs[0]: each.range for each in network.operations if each.range != EVERYWHERE}
    return {
        name: each.clamp(*ranges[name]) if name in ranges and readers[name] == 1 else each
        for name, each in values.items()
    }


def _operation(
    each: FloatOperation, name: str, inputs: tuple[str, ...], given: Quantization, output: Quantization
) -> Operation:
    if each.kind is Conv:
        assert each.weight is not None
        assert each.bias is not None
        return Conv(name, inputs, output, *weight_codes(each.weight, each.bias, given.scale), *each.window)
    if each.function is not None:
        return Table(name, inputs, output, *_table(each, given, output))
    return each.kind(name, inputs, output, *each.window)


def weight_codes(weight: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The codes of a convolution's weight and bias, and the scale of each channel:

        s_O = max |W_O| / 127,    q_w = round(W_O / s_O),    q_b = round(b_O / (s_O s_x))

    Where the weights of a channel are so small that the code of its bias would not fit into 32 bits, its
    scale is as large as that needs; where all of them and the bias are 0, that of the largest channel.

    Args:
        weight, bias: float32 [O, I / groups, K, K] and [O].
        scale: s_x, of the input.
    """
    weight, bias = weight.double(), bias.double()
    by_bias = bias.abs() / (scale * HIGHEST_BIAS)
    scales = torch.maximum(weight.flatten(1).abs().amax(1) / LARGEST_WEIGHT, by_bias)
    smallest = torch.finfo(torch.float32).tiny
    scales = scales.where(scales > smallest, scales.max().clamp_min(smallest)).float()
    wide = scales.double()
    codes = (weight / wide.view(-1, 1, 1, 1)).round().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    biases = (bias / (wide * scale)).round().clamp(LOWEST_BIAS, HIGHEST_BIAS)
    return codes.to(torch.int8), biases.to(torch.int32), scales


def _table(each: FloatOperation, given: Quantization, output: Quantization) -> tuple[Tensor, Tensor]:
    """Codes and slopes of a function at all codes of its input."""
    assert each.function is not None
    x = ((torch.arange(LOWEST, HIGHEST + 1, dtype=torch.float64) - given.zero) * given.scale).requires_grad_()
    y = each.function(x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    codes = (y.detach() / output.scale).round() + output.zero
    in_range = (codes >= LOWEST) & (codes <= HIGHEST)
    table = codes.clamp(LOWEST, HIGHEST).to(torch.int8)
    return table, (slopes * in_range * given.scale / output.scale).float()


def _free(name: str) -> str:
    """A name that no part of an int8 network has."""
    return f"_{name}" if name.split(".")[0] in _TAKEN else name
