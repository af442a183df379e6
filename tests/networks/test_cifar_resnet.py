import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neq.networks.build import build_network
from neq.networks.cifar_resnet import BasicBlock, CifarResNet
from neq.networks.neurons import neuron_table

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "nowhere"))
# Of the inputs that the published weights expect.
MEAN, STD = (torch.tensor(each).view(3, 1, 1) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def test_a_shortcut_takes_every_second_position_and_pads_channels_on_both_sides():
    block = BasicBlock(2, 6, 2).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 6, 2, 2)
    expected[:, 2:4] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize(("blocks", "parameters"), [(3, 269_722), (9, 853_018)])
def test_parameters_and_layers(blocks, parameters):
    network = CifarResNet(blocks, 10)
    assert sum(each.numel() for each in network.parameters()) == parameters
    table = neuron_table(network, (3, 32, 32))
    assert len(table.layers) == 6 * blocks + 1
    assert (table.head, table.unselectable) == ("linear", ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "photos", "split", "top1"),
    [
        ("resnet20", "cifar10/cifar10_subset", "test", 82.65),
        ("resnet20", "cifar10_lossless/cifar10_lossless", "train", 99.85),
    ],
)
def test_published_weights(name, photos, split, top1):
    file = ASSETS / "weights" / f"{name}_cifar10_akamaster.safetensors"
    if not file.exists():
        pytest.skip("the published weights are not in NEQ_TEST_ASSETS")
    arrays = np.load(ASSETS / "data" / f"{photos}.npz")
    images = torch.tensor(arrays[f"x_{split}"][:2000]).permute(0, 3, 1, 2) / 255
    network = build_network(name, 10, weights=str(file)).eval()
    with torch.no_grad():
        hits = network((images - MEAN) / STD).argmax(1) == torch.tensor(arrays[f"y_{split}"][:2000])
    assert 100 * hits.double().mean() == pytest.approx(top1, abs=0.2)
