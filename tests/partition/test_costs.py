"""Costs of the published networks are exact; those of any are what torch counts."""

import pytest
from torch import nn

from neq.compression.size import macs_of
from neq.partition import published
from neq.partition.costs import (
    branch_macs,
    conv_weights,
    head_macs,
    macs,
    parameters,
    sent,
    sent_bytes,
    stem_macs,
)
from neq.partition.networks import BranchedNetwork
from tests.partition.toys import base, two

# Millions: parameters, MACs, of stem, of head, of the branches.
MILLIONS = {
    "mobilenet_v2": (3.505, 300.774, 10.838, 21.350, [268.586]),
    "mnasnet_b1": (4.383, 314.416, 10.838, 21.350, [282.227]),
    "fbnet_c": (5.571, 378.136, 5.419, 36.204, [336.513]),
    "syncnas_mobilenet_v2_100": (4.549, 488.989, 10.838, 21.350, [252.695, 204.106]),
    "syncnas_mnasnet_b1_100": (5.676, 495.489, 10.838, 21.350, [266.217, 197.083]),
    "syncnas_fbnet_c_100": (6.736, 551.075, 5.419, 36.204, [304.087, 205.365]),
}
# Shapes at the syncs, and the MACs of branch 1 / branch 0 between them.
SYNCS = {
    "syncnas_mobilenet_v2_100": ([(16, 112, 112), (96, 14, 14), (320, 7, 7)], [0.60, 0.87, 0.70]),
    "syncnas_mnasnet_b1_100": ([(8, 112, 112), (96, 14, 14), (320, 7, 7)], [0.75, 0.86, 0.57]),
    "syncnas_fbnet_c_100": ([(112, 14, 14), (184, 7, 7), (352, 7, 7)], [0.73, 0.58, 0.53]),
}


@pytest.mark.parametrize("name", MILLIONS)
def test_published_networks(name):
    model = published(name)
    found = (parameters(model), macs(model), stem_macs(model), head_macs(model))
    branches = [round(branch_macs(model, branch) / 1e6, 3) for branch in range(model.branches)]
    assert (*(round(each / 1e6, 3) for each in found), branches) == MILLIONS[name]


@pytest.mark.parametrize("name", SYNCS)
def test_syncs_of_published_networks(name):
    model = published(name)
    shapes, ratios = SYNCS[name]
    for branch in (0, 1):
        assert [sent(model, segment, branch) for segment in model.segments] == shapes
    assert sent_bytes(model, model.segments[0], 1) == 4 * shapes[0][0] * shapes[0][1] * shapes[0][2]
    found = [branch_macs(model, 1, each) / branch_macs(model, 0, each) for each in model.segments]
    assert found == pytest.approx(ratios, abs=0.0052)


@pytest.mark.parametrize("model", [base(), two(), two("nnncaca")], ids=["plain", "two", "c"])
@pytest.mark.parametrize("size", [16, 23])
def test_costs_are_what_torch_counts(model, size):
    network = BranchedNetwork(model, 7).eval()
    model = model.at(size)
    assert parameters(model, 7) == sum(parameter.numel() for parameter in network.parameters())
    assert macs(model, 7) == macs_of(network, size)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert conv_weights(model) == (len(convs), sum(conv.weight.numel() for conv in convs))
