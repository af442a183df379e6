"""The published memory model of int8 training: what one image keeps, and what trains.

In bits, over the convolutions of which something trains:

    32 trained biases + 8 trained weights + 1 C_out H W + 8 (input channels kept) H_in W_in

where the last term counts where weights train, and 8 for each feature that the classifier reads. Gradients of
the classifier, the optimizer's state and the gates of residuals are left out.

Source: Lin et al., "On-device training under 256KB memory", NeurIPS 2022 (the code of tiny-training).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neq.backward.output_channels import OutputChannels
from neq.backward.trainable import values_of
from neq.int8.conv import Int8Conv
from neq.int8.network import Int8Network
from neq.networks import ParameterSlice

_WEIGHT_BITS, _BIAS_BITS, _INPUT_BITS, _GATE_BITS = 8, 32, 8, 1


def model_kilobytes(
    network: Int8Network, parts: Mapping[str, ParameterSlice], image_shape: tuple[int, int, int]
) -> float:
    """The memory of training by the published model, in kB of 1024 bytes.

    Args:
        network: the network.
        parts: what trains, as `Plan.parts` has it.
        image_shape: channels, height and width.
    """
    bits = 0
    for name, (given, made) in _maps(network, image_shape).items():
        if name == network.head:
            continue
        conv = network.get_submodule(name)
        assert isinstance(conv, Int8Conv)
        weight, bias = (parts.get(f"{name}.{key}") for key in ("weight", "bias"))
        if weight is None and bias is None:
            continue
        bits += _GATE_BITS * made.numel()
        if bias is not None:
            bits += _BIAS_BITS * values_of(network, f"{name}.bias", bias)
        if weight is not None:
            bits += _WEIGHT_BITS * values_of(network, f"{name}.weight", weight)
            bits += _INPUT_BITS * _kept_inputs(conv, weight) * given[0, 0].numel()
    features = network.get_parameter(f"{network.head}.weight").shape[1]
    return (bits + _INPUT_BITS * features) / 8 / 1024


def _kept_inputs(conv: Int8Conv, part: ParameterSlice) -> int:
    """How many input channels the gradient of a slice of a weight reads."""
    outputs, width = conv.weight.shape[:2]
    inputs = width * conv.geometry.groups
    if part.index is None:
        return inputs
    if part.axis == 1:
        return len(part.index)
    read = OutputChannels.of(part.index, outputs, inputs, conv.geometry.groups).inputs
    return inputs if read is None else len(read)


@torch.no_grad()
def _maps(network: Int8Network, image_shape: tuple[int, int, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Input and output of each int8 convolution for one image, by name."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: found.update({name: (inputs[0], output)})
        )
        for name, module in network.named_modules()
        if isinstance(module, Int8Conv)
    ]
    try:
        network(torch.zeros(1, *image_shape))
    finally:
        for handle in handles:
            handle.remove()
    return found
