"""Corrects the biases of an int8 network for what rounding changes on average.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
whose correction by data this is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.int8.arithmetic import limits
from neq.int8.conv import Int8Conv
from neq.int8.description import HIGHEST_BIAS, IMAGE, LOWEST_BIAS
from neq.int8.float_network import FloatNetwork
from neq.int8.network import Int8Network

# A bias before a clamp does not move the mean by as much as itself.
_TIMES = 2


@torch.no_grad()
def correct_biases(network: Int8Network, original: FloatNetwork, images: Tensor) -> None:
    """Moves each bias by the difference of the mean results of both networks, operation by operation:

        b_O <- b_O + E[y_O of the float network] - E[y_O]

    so that each convolution reads what is corrected already. A value beyond the codes is the nearest one.

    Args:
        network: the int8 network, changed in place.
        original: its float network.
        images: normalized, [N, 3, S, S].
    """
    codes, real = {IMAGE: network.image(images)}, {IMAGE: images}
    left = [name for each in original.operations for name in each.inputs]
    for each in original.operations:
        module, inputs = network.get_submodule(each.name), [codes[name] for name in each.inputs]
        real[each.name] = each(*(real[name] for name in each.inputs))
        codes[each.name] = module(*inputs)
        if isinstance(module, Int8Conv):
            low, high = (end * module.output.scale for end in limits(module.output))
            mean = real[each.name].clamp(low, high).mean((0, 2, 3))
            for _ in range(_TIMES):
                difference = mean - codes[each.name].mean((0, 2, 3)) * module.output.scale
                moved = module.bias.double() + difference / (module.scales.double() * module.inputs[0].scale)
                module.bias.copy_(moved.clamp(LOWEST_BIAS, HIGHEST_BIAS))
                codes[each.name] = module(*inputs)
        for name in each.inputs:
            left.remove(name)
            if name not in left:
                codes.pop(name, None)
                real.pop(name, None)
