import copy
import gc
import logging
import random
import weakref

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from neq.backward import Plan
from neq.backward.fusion import traced
from neq.networks.neurons import neuron_table
from tests.toys import SHAPE, batch, toy


class MyConv(nn.Conv2d):
    """A class of someone's own that computes as torch's does."""


class MyNorm(nn.BatchNorm2d):
    """Likewise."""


class Net(nn.Module):
    """Two blocks, with something between them."""

    def __init__(self, between=None, activation=None):
        super().__init__()
        self.c1, self.n1 = MyConv(3, 6, 3), MyNorm(6)
        self.act = activation or nn.ReLU6()
        self.c2, self.n2 = MyConv(6, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        self.between = between
        self.calls = 0

    def forward(self, x):
        x = self.act(self.n1(self.c1(x)))
        if self.between is not None:
            x = self.between(self, x)
        return self.head(torch.relu(self.n2(self.c2(x))).mean((2, 3)))


def net(between=None, activation=None):
    torch.manual_seed(0)
    return Net(between, activation).double()


def table_of(network):
    return neuron_table(network, SHAPE)


def assert_like_stock(network, norm_mode="train"):
    """Outputs and gradients of the plan are the network's own."""
    network.zero_grad()
    stock = copy.deepcopy(network).train()
    for module in stock.modules():
        if isinstance(module, nn.BatchNorm2d) and norm_mode == "frozen":
            module.eval()
    images, labels = batch()
    plan = Plan(network, table_of(network), {"c1": [0, 3], "c2": [1, 2]}, norm_mode)
    outputs = []
    for model in (plan, stock):
        torch.manual_seed(1)
        random.seed(1)
        outputs.append(model(images))
        F.cross_entropy(outputs[-1], labels).backward()
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-9, atol=1e-12)
    for name, leaf in plan.named_parameters():
        expected = plan.parts[name].take(stock.get_parameter(name).grad)
        assert leaf.grad is not None, name
        assert torch.allclose(leaf.grad, expected, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize(
    "make", [net, toy, torchvision.models.resnet18, torchvision.models.mobilenet_v3_small]
)
def test_ordinary_networks_are_traced(make):
    network = make()
    assert traced(network, neuron_table(network, (3, 32, 32))) is not None


@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
def test_layers_of_someone_elses_class_train(norm_mode):
    assert_like_stock(net(), norm_mode)


IN_PLACE = {
    "mul_": lambda self, x: x.mul_(2),
    "mul_, result unused": lambda self, x: (x.mul_(2), x)[1],
    "add": lambda self, x: x.__iadd__(1.5),
    "hardswish": lambda self, x: F.hardswish(x, inplace=True),
}


@pytest.mark.parametrize("between", IN_PLACE.values(), ids=IN_PLACE)
@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
def test_an_activation_that_is_changed_in_place_is_not_made_again_from_its_source(between, norm_mode):
    assert_like_stock(net(between), norm_mode)


class Named(nn.Module):
    """A sum in place under two names, and an activation that changes both."""

    def __init__(self):
        super().__init__()
        self.c1, self.n1, self.act = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.c2 = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        a = self.n1(self.c1(x))
        b = a
        b += 1
        return self.head((self.act(b) + a + self.c2(a)).mean((2, 3)))


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
def test_an_activation_that_changes_what_others_read_stays_in_place(norm_mode):
    torch.manual_seed(0)
    assert_like_stock(Named().double(), norm_mode)


def noisy(self, x):
    return x + torch.randn(1).double()


def moody(self, x):
    return x * 2 if random.random() < 0.5 else x


def counting(self, x):
    self.calls += 1
    return x * self.calls


def without_gradients(self, x):
    with torch.no_grad():
        scale = x.abs().mean()
    return x * scale


def checkpointed(self, x):
    return checkpoint(torch.tanh, x, use_reentrant=False)


REFUSED = {
    "noise": noisy,
    "chance": moody,
    "counter": counting,
    "no_grad": without_gradients,
    "checkpoint": checkpointed,
}


@pytest.mark.parametrize("between", REFUSED.values(), ids=REFUSED)
def test_what_a_graph_cannot_hold_is_not_traced(between, caplog):
    network = net(between)
    before = copy.deepcopy(vars(network))
    states = torch.get_rng_state(), random.getstate()
    table = table_of(network)
    network.calls = 0
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    with caplog.at_level(logging.INFO, "neq"):
        assert traced(network, table) is None
    assert "it trains layer by layer" in caplog.text
    assert vars(network).keys() == before.keys()
    assert network.calls == 0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_a_network_with_optional_inputs_is_not_traced():
    class Optional(Net):
        def forward(self, x, extra=None):
            return super().forward(x) * (1 if extra is None else 3)

    network = Optional().double()
    assert traced(network, table_of(network)) is None
    assert_like_stock(network)


def test_a_changed_network_is_traced_anew():
    network = net()
    images, _ = batch()
    Plan(network, table_of(network), {})
    network.head = nn.Linear(6, 9).double()
    assert Plan(network, table_of(network), {})(images).shape == (6, 9)
    network.act = nn.Sigmoid()
    assert_like_stock(network)
    network.act = nn.Hardtanh(0, 2)
    assert_like_stock(network)
    network.act.max_val = 0.5
    assert_like_stock(network)


def test_a_trace_is_made_once():
    network = net()
    table = table_of(network)
    assert traced(network, table) is traced(network, table)


def test_a_network_is_freed_with_its_trace():
    network = net()
    plan = Plan(network, table_of(network), {"c1": [1]})
    plan(batch()[0]).sum().backward()
    gone = weakref.ref(network)
    del network, plan
    gc.collect()
    assert gone() is None


def test_networks_that_say_they_are_equal_have_traces_of_their_own():
    class Equal(Net):
        def __eq__(self, other):
            return isinstance(other, Equal)

        def __hash__(self):
            return 1

    one, two = Equal().double(), Equal().double()
    for network in (one, two):
        assert_like_stock(network)


def test_one_value_per_channel_is_refused_as_torch_does():
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    table = neuron_table(network, SHAPE)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Plan(network, table, {"1": [0]}, "train")(torch.randn(1, 3, 12, 12))
    assert network[2].running_var.isfinite().all()


def test_a_convolution_reads_its_input_where_it_stood():
    class Late(Net):
        def forward(self, x):
            y = self.c1(x)
            x.neg_()
            y = self.act(self.n1(y))
            return self.head(torch.relu(self.n2(self.c2(y))).mean((2, 3)))

    network = Late().double()
    stock = copy.deepcopy(network).train()
    images, _ = batch()
    plan = Plan(network, table_of(network), {"c2": [0]}, "train")
    assert torch.allclose(plan(images.clone()), stock(images.clone()), rtol=1e-9, atol=1e-12)
