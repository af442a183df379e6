import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.networks.neurons import neuron_table
from neq.selection import batch_gradients
from neq.utils.errors import UserError
from tests.toys import SHAPE, batch, toy


def test_gradients_are_those_of_the_stock_network_in_eval_mode():
    network = toy()
    images, labels = batch()
    found = batch_gradients(
        network, neuron_table(network, SHAPE), lambda forward: F.cross_entropy(forward(images), labels)
    )
    stock = copy.deepcopy(network).eval()
    F.cross_entropy(stock(images), labels).backward()
    assert found.keys() == {
        f"{name}.weight" for name in ("stem", "grouped", "depthwise", "pointwise", "hidden")
    }
    for name, gradient in found.items():
        assert torch.equal(gradient, stock.get_parameter(name).grad)


@pytest.mark.parametrize("is_training", [True, False])
def test_measuring_changes_nothing(is_training):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(800, 5)
    )
    network = network.double().train(is_training)
    network[0].weight.requires_grad_(False)
    network[4].weight.grad = torch.ones_like(network[4].weight)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    images, labels = batch()
    table = neuron_table(network, SHAPE)
    (gradient,) = batch_gradients(
        network, table, lambda forward: F.cross_entropy(forward(images), labels)
    ).values()
    assert gradient.abs().sum() > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training == is_training for module in network.modules())
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, *[True] * 5]
    assert all(
        (parameter.grad is not None) == (name == "4.weight") for name, parameter in network.named_parameters()
    )


def test_a_weight_without_influence_has_gradient_zero():
    network = toy()
    images, _ = batch()
    found = batch_gradients(network, neuron_table(network, SHAPE), lambda forward: forward(images).sum() * 0)
    assert not any(gradient.any() for gradient in found.values())


def test_a_weight_that_has_no_gradient_is_refused():
    network = toy()
    table = neuron_table(network, SHAPE)
    weight = network.stem.weight.detach()
    del network.stem.weight
    network.stem.register_buffer("weight", weight)
    with pytest.raises(UserError, match="gradients of layer 'stem' cannot be measured"):
        batch_gradients(network, table, lambda forward: forward(batch()[0]).sum())
