"""Every network of the catalog, and some of the libraries', through one selective training step."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neq.backward import Plan
from neq.config import network as entry_of
from neq.config import networks
from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.networks.neurons import NORMS, neuron_table

pytestmark = pytest.mark.slow

OWN = [name for name, entry in networks().items() if not entry.pretrained]
OTHERS = [
    "torchvision:squeezenet1_1",  # its head is a convolution
    "torchvision:regnet_y_400mf",
    "timm:mobilevit_xxs",
    "timm:vit_tiny_patch16_224",
    "timm:convnext_atto",
]
FIXED_SIZE = ("timm:vit_tiny_patch16_224",)
CLASSES = 5


@cache
def opened(name):
    """A network in double precision with running statistics that fit, images, labels and its neurons."""
    size, count = (entry_of(name).input_size, 2) if name in FIXED_SIZE else (32, 4)
    network = build_network(name, CLASSES).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        network.train()(images)
    return network, images, torch.arange(count), neuron_table(network, (3, size, size), head_name(network))


def some(table, share=0.05):
    """A few neurons all over the second half of a network."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(len(table), generator=generator) < share
    chosen[: len(table) // 2] = False
    chosen[-1] = True
    return table.selection(chosen)


@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("name", OWN + OTHERS)
def test_a_step_is_that_of_the_plain_network_and_changes_the_selection_alone(name, norm_mode):
    shared, images, labels, table = opened(name)
    network, stock = copy.deepcopy(shared), copy.deepcopy(shared)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with torch.no_grad():
        outputs = network.eval()(images)

    plan = Plan(network, table, some(table), norm_mode)
    with torch.no_grad():
        assert torch.equal(network(images), outputs)  # a plan does not touch the network
    stock.train()
    for module in stock.modules():
        if norm_mode == "frozen" and isinstance(module, NORMS):
            module.eval()
    torch.manual_seed(0)
    expected = F.cross_entropy(stock(images), labels)
    expected.backward()
    torch.manual_seed(0)
    loss = F.cross_entropy(plan(images), labels)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    right = {key: parameter.grad for key, parameter in stock.named_parameters()}
    scale = max(gradient.norm() for gradient in right.values() if gradient is not None)
    for key, parameter in plan.named_parameters():
        error = (parameter.grad - plan.parts[key].take(right[key])).norm()
        assert error <= 1e-8 * scale, key

    torch.optim.SGD(plan.parameters(), lr=0.1, momentum=0.9).step()
    plan.write_back()
    for key, tensor in network.named_parameters():
        moved = (tensor != before[key]).flatten(1).any(1) if tensor.ndim > 1 else tensor != before[key]
        layer = key.removesuffix(".weight")
        if layer in plan.selection:
            assert set(moved.nonzero().flatten().tolist()) <= set(plan.selection[layer].tolist())
        else:
            assert key in plan.parts or not moved.any(), key
    assert (network.get_submodule(table.head).weight != before[f"{table.head}.weight"]).any()
    if norm_mode == "frozen":
        for key, tensor in network.named_buffers():
            assert torch.equal(tensor, before[key]), key
    with torch.no_grad():
        stepped = network.eval()(images)
    assert stepped.isfinite().all()
    assert not torch.equal(stepped, outputs)
