"""The float network that an int8 network was made of, as far as its codes still show it."""

from __future__ import annotations

from torch import Tensor

from neq.int8.description import Conv, Description, Linear


def float_weights(network: Description) -> dict[str, Tensor]:
    """The state_dict of the float network: convolutions with a bias and a linear classifier, float32.

        W_o = q_o * scale_o        b_o = q_o * scale_o * scale of the input

    It fits the networks `NAME_folded` of the catalog, whose ReLU6 stand where an int8 network clamps.
    """
    found = {}
    for conv in (*network.convs, network.head):
        weight, bias = _real(network, conv)
        found[f"{conv.name}.weight"], found[f"{conv.name}.bias"] = weight, bias
    return found


def _real(network: Description, layer: Conv | Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias in floating point; of a classifier [classes, C] and [classes]."""
    if isinstance(layer, Linear):
        return layer.weight, layer.bias
    scales = layer.scales.double()
    weight = (layer.weight * scales.view(-1, 1, 1, 1)).float()
    bias = (layer.bias * scales * network.quantization(layer.inputs[0]).scale).float()
    return weight.flatten(1) if layer is network.head else weight, bias
