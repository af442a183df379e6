"""The published memory model: the kilobytes that the paper and its code state."""

import pytest
import torch

from neq.backward import trainable_slices
from neq.config import scheme
from neq.int8 import Int8Network, model_kilobytes
from neq.int8.named import untrained
from neq.networks import neuron_table

SHAPE = (3, 128, 128)
NETWORKS: dict = {}


def parts(name, indices, ratios, biases, unit="input_channel"):
    """A network, and what trains: shares of some convs' weights, and the biases of the last ones."""
    if (name, unit) not in NETWORKS:
        network = Int8Network(untrained(name))
        NETWORKS[name, unit] = network, neuron_table(network, SHAPE, unit=unit)
    network, table = NETWORKS[name, unit]
    layers = table.layers
    indices = [index % len(layers) for index in indices]
    counts = {
        layers[i].name: round(share * layers[i].neurons) for i, share in zip(indices, ratios, strict=True)
    }
    selection = {layer: torch.arange(count) for layer, count in counts.items() if count}
    last = [layer.name for layer in layers[len(layers) - biases :]]
    return network, trainable_slices(network, table, selection, "frozen", last)


def last(count):
    return range(-count, 0), [1] * count, count


@pytest.mark.parametrize(
    ("name", "what", "kilobytes"),
    [
        ("mcunet-in1", ((21, 24, 27, 30, 36, 39), (1, 1, 1, 1, 0.125, 0.25), 22), 99.8),
        ("mcunet-in1", last(12), 448.0),
        ("mcunet-in1", last(6), 276.3),
        ("mcunet-in1", ((), (), 42), 121.3),
        ("mcunet-in1", last(42), 1400.4),
        ("mbv2-w0.35", last(51), 1306.4),
        ("mbv2-w0.35", last(12), 223.7),
        ("mbv2-w0.35", "mbv2-w0.35_scheme_1", 49.8),
        ("mbv2-w0.35", "mbv2-w0.35_scheme_5", 138.2),
        ("proxyless-w0.3", last(60), 1210.7),
        ("proxyless-w0.3", last(12), 266.4),
        ("proxyless-w0.3", "proxyless-w0.3_scheme_1", 49.7),
    ],
)
def test_the_published_kilobytes(name, what, kilobytes):
    if isinstance(what, str):
        lists = scheme(what)
        what = lists.manual_weight_idx, lists.weight_update_ratio, lists.n_bias_update
    assert model_kilobytes(*parts(name, *what), SHAPE) == pytest.approx(kilobytes, abs=0.051)


def test_output_channels_read_all_inputs_of_their_groups():
    """Of a dense convolution all inputs are kept, of a depthwise one those of the chosen channels."""
    none = model_kilobytes(*parts("mcunet-in1", (), (), 0), SHAPE)
    assert none == 160 / 1024
    network, trained = parts("mcunet-in1", (-1,), (0.5,), 0, unit="neuron")
    conv = network.get_submodule("blocks.13.pointwise2")
    outputs, inputs = conv.weight.shape[:2]
    bits = 32 * outputs // 2 + 8 * outputs // 2 * inputs + outputs * 16 + 8 * inputs * 16
    assert model_kilobytes(network, trained, SHAPE) - none == pytest.approx(bits / 8 / 1024)
    network, trained = parts("mcunet-in1", (-2,), (0.5,), 0, unit="neuron")
    chosen = len(network.get_submodule("blocks.13.depthwise").weight) // 2
    bits = 32 * chosen + 8 * chosen * 9 + 2 * chosen * 16 + 8 * chosen * 16
    assert model_kilobytes(network, trained, SHAPE) - none == pytest.approx(bits / 8 / 1024)
