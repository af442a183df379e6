"""Biases that are corrected for rounding."""

import pytest
import torch

from neq.int8 import Images, Int8Conv, Int8Network
from neq.int8.calibrate import min_max, observe, quantization
from neq.int8.correct import correct_biases
from neq.int8.quantize import description
from neq.int8.trace import read_network
from tests.int8.float_toys import excited, pictures


@pytest.fixture
def networks():
    """A float network, and an int8 one whose weights were rounded to every eighth code."""
    original = read_network(excited(), 16)
    values = observe(original, pictures())
    results = {name: quantization(*min_max(each)) for name, each in values.items()}
    network = Int8Network(description(original, results, Images(16)))
    for module in network.modules():
        if isinstance(module, Int8Conv):
            module.weight.data.div_(8).round_().mul_(8).clamp_(-127, 127)
    return original, network


def mean_errors(original, network, x):
    """Of each convolution, the largest difference of a channel's mean from the float network's, in codes."""
    right, found = {}, {}

    def keep(name):
        return lambda module, inputs, output: found.update({name: (output, module.output)})

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in network.named_modules()
        if isinstance(module, Int8Conv)
    ]
    with torch.no_grad():
        network(x)
    original.run(x, lambda name, out: right.update({name: out}))
    for handle in handles:
        handle.remove()
    errors = {}
    for name, (codes, output) in found.items():
        low, high = ((code - output.zero) * output.scale for code in (-128, 127))
        mean = right[name].clamp(low, high).mean((0, 2, 3)) / output.scale
        errors[name] = float((codes.mean((0, 2, 3)) - mean).abs().max())
    return errors


def test_the_means_become_those_of_the_float_network(networks):
    original, network = networks
    x, weights = pictures(), {name: each.clone() for name, each in network.named_parameters()}
    before = mean_errors(original, network, x)
    correct_biases(network, original, x)
    after = mean_errors(original, network, x)
    assert max(before.values()) > 3
    assert sum(after.values()) < 0.3 * sum(before.values())
    moved = {name for name, each in network.named_parameters() if not torch.equal(each, weights[name])}
    assert moved == {f"{name}.bias" for name in before}


def test_biases_of_dead_channels_stay_in_their_range(networks):
    original, network = networks
    conv = network.expand
    with torch.no_grad():
        conv.weight[2] = 0
        conv.scales[2] = 4e-9
    correct_biases(network, original, pictures())
    assert bool(conv.bias.isfinite().all())
    assert -(2**31) <= conv.bias[2].item() <= 2**31
