"""The float network that an int8 network was made of, as far as its codes still show it."""

from __future__ import annotations

from torch import Tensor

from neq.int8.description import Description


def float_weights(network: Description) -> dict[str, Tensor]:
    """The state_dict of the float network: convolutions with a bias and a linear classifier, float32.

        W_o = q_o * scale_o        b_o = q_o * scale_o * scale of the input

    It fits the networks `NAME_folded` of the catalog, whose ReLU6 stand where an int8 network clamps.
    """
    weights = {}
    for conv in (*network.convs, network.head):
        scales = conv.scales.double()
        weight = conv.weight * scales.view(-1, 1, 1, 1)
        weights[f"{conv.name}.weight"] = weight.float()
        weights[f"{conv.name}.bias"] = (
            conv.bias * scales * network.quantization(conv.inputs[0]).scale
        ).float()
    name = f"{network.head.name}.weight"
    weights[name] = weights[name].flatten(1)
    return weights
