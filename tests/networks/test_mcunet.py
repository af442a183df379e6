import pytest
import torch
from torch import nn

from neq.config import networks
from neq.networks.build import build_network
from neq.networks.mcunet import MCUNet

TABLES = {name: entry for name, entry in networks().items() if entry.first is not None}


def convs_of(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("name", "convs", "weights"),
    [
        ("mcunet-in0", 45, 543_176),
        ("mcunet-in1", 42, 463_216),
        ("mcunet-in2", 54, 552_904),
        ("mcunet-in3", 54, 561_032),
        ("mcunet-in4", 51, 1_390_232),
        ("mbv2-w0.35", 51, 238_688),
        ("proxyless-w0.3", 60, 320_816),
        ("mbv2-w0.35_mix", 52, 288_864),
        ("proxyless-w0.3_mix", 61, 357_680),
    ],
)
def test_tables_give_the_published_totals(name, convs, weights):
    network = build_network(name, 10)
    found = convs_of(network)
    assert len(found) == convs
    assert sum(conv.weight.numel() for conv in found) == weights
    assert all(conv.bias is None for conv in found)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == convs
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.1)}


@pytest.mark.parametrize("name", [name for name in TABLES if name.endswith("_folded")])
def test_a_folded_build_has_the_same_convs_with_a_bias_and_no_norms(name):
    folded, whole = build_network(name, 10), build_network(name.removesuffix("_folded"), 10)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    for conv, other in zip(convs_of(folded), convs_of(whole), strict=True):
        assert conv.weight.shape == other.weight.shape
        assert (conv.stride, conv.padding, conv.groups) == (other.stride, other.padding, other.groups)
        assert not conv.bias.any()


def test_folding_the_norms_in_gives_the_same_function():
    torch.manual_seed(0)
    rows = ((1, 8, 1, 3), (4, 12, 2, 5), (3, 12, 1, 3))
    whole, folded = MCUNet(8, rows, 5, 24).eval(), MCUNet(8, rows, 5, 24, folded=True).eval()
    with torch.no_grad():
        sequences = [module for module in whole.modules() if isinstance(module, nn.Sequential)]
        pairs = [pair for pair in sequences if len(pair) == 2 and isinstance(pair[1], nn.BatchNorm2d)]
        for (conv, norm), into in zip(pairs, convs_of(folded), strict=True):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-1, 1)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 1.5)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            into.weight.copy_(conv.weight * scale[:, None, None, None])
            into.bias.copy_(norm.bias - norm.running_mean * scale)
        folded.classifier.load_state_dict(whole.classifier.state_dict())
        images = torch.randn(3, 3, 32, 32)
        torch.testing.assert_close(folded(images), whole(images), rtol=1e-4, atol=1e-5)


def test_layers_are_named_as_in_tiny_training():
    names = set(build_network("mcunet-in1_folded", 10).state_dict())
    assert {"first_conv.weight", "blocks.0.depthwise.bias", "blocks.13.pointwise2.weight"} <= names
    assert {name.partition(".")[0] for name in names} == {"first_conv", "blocks", "classifier"}
    assert "blocks.0.pointwise1.weight" not in names


def test_a_block_is_skipped_where_shapes_allow():
    skips = [block.skip for block in build_network("mcunet-in1", 10).blocks]
    assert [index for index, skip in enumerate(skips) if skip] == [2, 4, 6, 8, 9, 11, 12]
