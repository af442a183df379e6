"""Fused activations: exact, and kept for backward only as far as their gradient needs it."""

import copy
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from neq.backward import Plan
from neq.backward.activations import HARDSWISH, RELU, RELU6, SILU, Clamp, activation_of
from neq.budget import CostModel, StepSpec
from neq.networks.neurons import neuron_table
from neq.training.profiling import SavedBytes

SHAPE = (3, 12, 12)


class Net(nn.Module):
    """Convolutions with norms, and one activation behind a sum."""

    def __init__(self, make):
        super().__init__()
        self.c1, self.n1, self.a1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), make()
        self.c2, self.n2, self.a2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), make()
        self.c3, self.n3, self.a3 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), make()
        self.c4, self.a4 = nn.Conv2d(8, 6, 3), make()
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.a1(self.n1(self.c1(x)))
        x = self.a3(x + self.n3(self.c3(self.a2(self.n2(self.c2(x))))))
        return self.head(self.a4(self.c4(x)).mean((2, 3)))


MAKERS = {
    "relu": nn.ReLU,
    "relu inplace": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "hardswish inplace": lambda: nn.Hardswish(inplace=True),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
SELECTIONS = {
    "first": {"c1": [0, 5]},
    "depthwise": {"c2": [1, 2]},
    "behind the sum": {"c4": [3]},
    "all over": {"c1": [1], "c2": [0, 7], "c3": [2, 3, 4], "c4": range(6)},
}


@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_outputs_and_gradients_are_those_of_stock_modules(make, selection, norm_mode):
    torch.manual_seed(0)
    network = Net(make).double()
    stock = copy.deepcopy(network).train()
    for module in stock.modules():
        if isinstance(module, nn.BatchNorm2d) and norm_mode == "frozen":
            module.eval()
    plan = Plan(network, neuron_table(network, SHAPE), selection, norm_mode)
    images, labels = torch.randn(4, *SHAPE).double() * 3, torch.arange(4)
    outputs = [model(images) for model in (plan, stock)]
    assert torch.allclose(*outputs, rtol=1e-9, atol=1e-12)
    for output in outputs:
        F.cross_entropy(output, labels).backward()
    for name, leaf in plan.named_parameters():
        expected = plan.parts[name].take(stock.get_parameter(name).grad)
        assert torch.allclose(leaf.grad, expected, rtol=1e-9, atol=1e-12), name


def kept(network, selection, norm_mode, **settings):
    plan = Plan(network, neuron_table(network, SHAPE), selection, norm_mode, **settings)
    images = torch.randn(4, *SHAPE)
    saved = SavedBytes(chain(network.parameters(), network.buffers(), plan.parameters(), [images]))
    with saved.counting():
        plan(images)
    return saved.total


def test_a_clamp_behind_a_sum_keeps_its_bits_or_what_the_next_layer_keeps():
    network = Net(nn.ReLU)
    values = 4 * 8 * 10 * 10  # of each map between c1 and c4
    bits = values // 8
    below = kept(network, {"c1": [0]}, "frozen")
    assert below < 4 * bits + 3000  # three activations, and the last one's
    both = kept(network, {"c1": [0], "c4": [0]}, "frozen")
    assert both - below == pytest.approx(4 * values - bits, abs=64)


def test_a_smooth_activation_keeps_what_it_took_and_the_next_layer_nothing_more():
    network = Net(nn.Hardswish)
    values = 4 * 8 * 10 * 10
    below = kept(network, {"c1": [0]}, "frozen")
    with_reader = kept(network, {"c1": [0], "c2": [0, 1]}, "frozen")
    assert 3 * 4 * values <= below < 3 * 4 * values + 7000  # a4's are fewer
    assert with_reader == pytest.approx(below, abs=64)


@pytest.mark.slow
@pytest.mark.parametrize(("norm_mode", "share"), [("train", 0.7), ("frozen", 0.9)])
def test_a_real_network_with_hardswish_keeps_less_than_layer_by_layer(monkeypatch, norm_mode, share):
    network = torchvision.models.mobilenet_v3_small(num_classes=5).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 128, 128))
    everywhere = {layer.name: [0] for layer in table.layers}
    model = CostModel(network, table, StepSpec((8,), (3, 128, 128), norm_mode))
    fused = model.step(everywhere).saved_bytes
    monkeypatch.setattr("neq.backward.plan.traced", lambda network, table: None)
    assert fused < share * model.step(everywhere).saved_bytes


def test_activations_are_known_by_module():
    assert activation_of(nn.ReLU()) == RELU
    assert activation_of(nn.ReLU6()) == activation_of(nn.Hardtanh(0, 6)) == RELU6
    assert activation_of(nn.Hardtanh(0, 4)) == Clamp(4.0)
    assert activation_of(nn.Hardtanh(-1, 1)) is None
    assert activation_of(nn.Hardswish()) == HARDSWISH
    assert activation_of(nn.SiLU()) == SILU
    patched = nn.ReLU()
    patched.forward = torch.sigmoid
    assert activation_of(patched) is None
