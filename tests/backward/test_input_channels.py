"""Choosing input channels: their gradients, and what is kept for them."""

import copy
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neq.backward import Plan
from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState, StaticScheme
from neq.training.profiling import SavedBytes
from tests.toys import SHAPE, batch, toy


def assert_same_gradients(network, plan, stock, images, labels):
    for model in (plan, stock):
        F.cross_entropy(model(images), labels).backward()
    for name, leaf in plan.named_parameters():
        expected = plan.parts[name].take(stock.get_parameter(name).grad)
        assert leaf.grad.shape == expected.shape
        assert torch.allclose(leaf.grad, expected, rtol=1e-9, atol=1e-12), name


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gradients_of_random_layers(data):
    inputs, outputs = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    kernel, stride = data.draw(st.sampled_from([1, 3, (1, 3)])), data.draw(st.sampled_from([1, 2]))
    padding, dilation = data.draw(st.sampled_from([0, 1, "valid"])), data.draw(st.sampled_from([1, 2]))
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    norm_mode = data.draw(st.sampled_from(["train", "frontier", "frozen"]))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    activation = data.draw(st.sampled_from([nn.ReLU, nn.SiLU, nn.Tanh]))
    network = nn.Sequential(
        nn.Conv2d(3, inputs, 1), nn.BatchNorm2d(inputs), activation(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation), nn.BatchNorm2d(outputs), activation(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * outputs, 6), nn.ReLU(), nn.Linear(6, 5),
    ).double().to(memory_format=layout)  # fmt: skip
    table = neuron_table(network, SHAPE, unit="input_channel")
    assert [layer.neurons for layer in table.layers] == [3, inputs, 4 * outputs]
    chosen = torch.rand(len(table)) < data.draw(st.sampled_from([0.2, 0.6, 1.0]))
    stock = copy.deepcopy(network).train()
    for module in stock.modules():
        if isinstance(module, nn.BatchNorm2d) and norm_mode == "frozen":
            module.eval()
    plan = Plan(network, table, table.selection(chosen), norm_mode)
    images, labels = batch()
    assert_same_gradients(network, plan, stock, images.contiguous(memory_format=layout), labels)


@pytest.mark.parametrize("make", [torchvision.models.mobilenet_v2, torchvision.models.resnext50_32x4d])
def test_real_networks_and_grouped_convolutions(make):
    torch.manual_seed(0)
    network = make(num_classes=5).double()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    table = neuron_table(network, (3, 32, 32), unit="input_channel")
    grouped = [layer for layer in table.layers if layer.axis == 0]
    modules = [network.get_submodule(layer.name) for layer in grouped]
    assert modules
    assert all(module.groups > 1 for module in modules)
    assert all(layer.neurons == module.out_channels for layer, module in zip(grouped, modules, strict=True))
    chosen = torch.rand(len(table)) < 0.1
    plan = Plan(network, table, table.selection(chosen), "train")
    images = torch.randn(3, 3, 32, 32).double()
    assert_same_gradients(network, plan, copy.deepcopy(network).train(), images, torch.tensor([1, 2, 3]))
    weights = int(sum(table.parameters[chosen]))
    assert plan.trained_values()["weights"] == weights
    assert plan.trained_values()["biases"] == 0


def kept(network, table, selection):
    plan = Plan(network, table, selection, "frozen")
    images = batch()[0]
    saved = SavedBytes(chain(network.parameters(), network.buffers(), plan.parameters(), [images]))
    with saved.counting():
        plan(images)
    return saved.total


def test_only_the_chosen_channels_are_kept():
    network = toy()
    table = neuron_table(network, SHAPE, unit="input_channel")
    one, five = (kept(network, table, {"pointwise": range(count)}) for count in (1, 5))
    assert five - one == 4 * 6 * 6 * 6 * 8  # four more channels of six float64 maps of 6 x 6
    assert one < kept(network, neuron_table(network, SHAPE), {"pointwise": [0]})


def test_only_the_chosen_columns_move():
    network = toy()
    table = neuron_table(network, SHAPE, unit="input_channel")
    before = copy.deepcopy(network.state_dict())
    plan = Plan(network, table, {"stem": [1], "hidden": [0, 23]}, "frozen")
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for seed in range(2):
        images, labels = batch(seed)
        F.cross_entropy(plan(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
    moved = {name: network.state_dict()[name] != value for name, value in before.items()}
    assert moved["stem.weight"].transpose(0, 1).flatten(1).any(1).tolist() == [False, True, False]
    assert moved["hidden.weight"].any(0).nonzero().flatten().tolist() == [0, 23]
    trained = ("stem.weight", "hidden.weight", "head.weight", "head.bias")
    assert not any(moved[name].any() for name in moved if name not in trained)


def test_su_takes_the_input_channels_with_the_largest_weights():
    """As in the source of SU, where only the chosen channels of the input are stored."""
    network = toy()
    with torch.no_grad():
        network.pointwise.weight[:, [3, 17]] *= 50
    table = neuron_table(network, SHAPE, unit="input_channel")
    state = SelectionState(table, network, torch.Generator(), StaticScheme((3,), (2 / 24,)))
    allocator = BudgetAllocator(CostModel(network, table, StepSpec((4,), SHAPE, "frozen")), Budget(ratio=0.5))
    selection = table.selection(allocator.choose(POLICIES["SU"], state).chosen)
    assert {name: channels.tolist() for name, channels in selection.items()} == {"pointwise": [3, 17]}


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["bytes", "macs", "parameters"])
def test_budgets_hold(unit):
    network = torchvision.models.mobilenet_v2(num_classes=5).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 32, 32), unit="input_channel")
    model = CostModel(network, table, StepSpec((4,), (3, 32, 32), "frozen"))
    allocator = BudgetAllocator(model, Budget(unit, ratio=0.3))
    choice = allocator.choose(POLICIES["random"], SelectionState(table, network, torch.Generator()))
    assert 0.95 * choice.limit < choice.used <= choice.limit


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit 'row' is unknown"):
        neuron_table(toy(), SHAPE, unit="row")
