"""Branched networks: branch by branch as in one process, traced whole, gradients as autograd's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan
from neq.backward.fusion import traced
from neq.networks.heads import head_name
from neq.networks.neurons import neuron_table
from neq.partition import published
from neq.partition.costs import conv_weights, sent
from neq.partition.networks import BranchedNetwork, joined
from tests.partition.toys import IMAGE, base, two

MODELS = {"plain": base(), "two": two(), "sums": two("nnnnnna"), "rows": two("ccccccc")}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_branches_one_by_one_are_the_whole(model):
    network = BranchedNetwork(model, 5).eval()
    images = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        x = network.stem(images)
        for segment in model.segments:
            outputs = [branch(x, segment) for branch in network.branches]
            shapes = [(2, *sent(model, segment, branch)) for branch in range(model.branches)]
            assert [tuple(output.shape) for output in outputs] == shapes
            x = joined(segment.sync, outputs)
        assert torch.equal(network.top(x), network(images))
    own = [name for name in network.state_dict() if name.startswith("branches.0.")]
    assert len(own) == len(network.branches[0].state_dict())


def test_a_block_is_the_published_one():
    network = BranchedNetwork(published("syncnas_fbnet_c_100"))
    narrowing = network.branches[1][1][1]  # 24 -> 8 -> 24, with a skip
    assert narrowing.expand[0].weight.shape == (8, 24, 1, 1)
    assert narrowing.skips
    plain = network.branches[1][0][0]  # 16 -> 16
    assert plain.expand is None
    assert isinstance(plain.act, nn.ReLU)
    momenta = {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert momenta == {0.1}
    assert head_name(network) == "classifier"


def test_a_sync_of_two_maps():
    one, other = torch.randn(2, 1, 3, 2, 2)
    assert torch.equal(joined("a", [one, other]), one + other)
    assert torch.equal(joined("c", [one, other]), torch.cat([one, other], 1))
    assert joined("", [one]) is one


def test_both_branches_hold_neurons():
    table = neuron_table(BranchedNetwork(two(), 5), (3, IMAGE, IMAGE))
    names = [layer.name for layer in table.layers]
    for branch in (0, 1):
        assert f"branches.{branch}.2.1.depthwise.0" in names
    assert len(names) == conv_weights(two())[0]


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize("name", ["two", "rows"])
def test_a_plan_is_traced_and_its_gradients_are_autograds(name, norm_mode):
    network = BranchedNetwork(MODELS[name], 5).double()
    table = neuron_table(network, (3, IMAGE, IMAGE))
    assert traced(network, table) is not None
    stock = copy.deepcopy(network).train()
    for module in stock.modules():
        if isinstance(module, nn.BatchNorm2d) and norm_mode == "frozen":
            module.eval()
    chosen = {layer.name: list(range(0, layer.neurons, 2)) for layer in table.layers[::3]}
    plan = Plan(network, table, chosen, norm_mode)
    images, labels = torch.randn(6, 3, IMAGE, IMAGE).double(), torch.arange(6) % 5
    outputs = []
    for model in (plan, stock):
        torch.manual_seed(1)
        outputs.append(model(images))
        F.cross_entropy(outputs[-1], labels).backward()
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-9, atol=1e-12)
    for key, leaf in plan.named_parameters():
        expected = plan.parts[key].take(stock.get_parameter(key).grad)
        assert torch.allclose(leaf.grad, expected, rtol=1e-7, atol=1e-10), key
