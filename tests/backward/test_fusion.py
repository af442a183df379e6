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
from neq.networks.module_state import ModuleState
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


class Options:
    """A setting in an object."""

    def __init__(self, second):
        self.second = second


SETTINGS = {
    "dict": lambda second: {"second": second},
    "list": lambda second: [second],
    "tuple": lambda second: (1, (second,)),
    "object": Options,
    "function": lambda second: torch.tanh if second else torch.sin,
    "tensor": torch.tensor,
}


def reads(setting):
    """Whether a setting asks for the second layer."""
    if isinstance(setting, dict | Options):
        return setting["second"] if isinstance(setting, dict) else setting.second
    if isinstance(setting, tuple):
        return setting[1][0]
    return setting[0] if isinstance(setting, list) else setting


def by_setting(self, x):
    if callable(self.setting):
        return self.setting(x)
    return x.tanh() if reads(self.setting) else x.sin()


@pytest.mark.parametrize("make", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_changes_is_seen_by_the_next_plan(make):
    network = net(by_setting)
    network.setting = make(True)
    assert_like_stock(network)
    network.setting = make(False)
    assert_like_stock(network)


@pytest.mark.parametrize("change", [lambda s: s.update(second=False), lambda s: s["deep"].append(1)])
def test_a_setting_that_changes_within_its_container_is_seen_by_the_next_plan(change):
    network = net(lambda self, x: x.tanh() if self.setting["second"] and not self.setting["deep"] else x)
    network.setting = {"second": True, "deep": []}
    assert_like_stock(network)
    change(network.setting)
    assert_like_stock(network)


def in_buffer(self, x):
    self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
    return x - self.mean.view(1, -1, 1, 1)


def in_buffers_values(self, x):
    self.mean.mul_(0.9).add_(1)
    return x


def in_list(self, x):
    self.features.clear()
    self.features.append(x)
    return x


def in_dict(self, x):
    self.named["last"] = {"map": x}
    return x


def in_attribute(self, x):
    self.last = x
    self.calls += 1
    return x


def in_object(self, x):
    self.options.second = x
    return x


def in_new_attribute(self, x):
    self.more = (x, 1)
    return x


RECORDS = [in_buffer, in_buffers_values, in_list, in_dict, in_attribute, in_object, in_new_attribute]


def recording(between):
    network = net(between)
    network.register_buffer("mean", torch.zeros(6).double())
    network.features, network.named, network.last, network.options = [], {}, None, Options(None)
    return network


@pytest.mark.parametrize("between", RECORDS)
def test_a_plan_leaves_the_network_as_it_was(between):
    network = recording(between)
    before, state = ModuleState(network).digest, copy.deepcopy(network.state_dict())
    Plan(network, table_of(network), {"c1": [0]})
    assert ModuleState(network).digest == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("between", RECORDS)
def test_what_a_forward_records_is_left_on_the_network(between):
    """As stock PyTorch leaves it, graph included: an auxiliary loss on it trains what it reaches."""
    network = recording(between)
    stock = copy.deepcopy(network).train()
    plan = Plan(network, table_of(network), {"c1": [0, 3]}, "train")
    images, _ = batch()
    for _ in range(2):
        outputs = [model(images) for model in (plan, stock)]
    assert torch.allclose(*outputs, rtol=1e-9, atol=1e-12)
    assert torch.allclose(network.mean, stock.mean)
    assert network.calls == stock.calls == (2 if between is in_attribute else 0)
    records = []
    for model, output in zip((network, stock), outputs, strict=True):
        record = {
            in_list: lambda model: model.features[0],
            in_dict: lambda model: model.named["last"]["map"],
            in_attribute: lambda model: model.last,
            in_object: lambda model: model.options.second,
            in_new_attribute: lambda model: model.more[0],
        }.get(between, lambda model: model.mean)(model)
        records.append(record)
        (output.sum() + record.square().sum()).backward()
    assert torch.allclose(*records, rtol=1e-9, atol=1e-12)
    found = dict(plan.named_parameters())["c1.weight"].grad
    assert torch.allclose(found, stock.c1.weight.grad[[0, 3]], rtol=1e-9, atol=1e-12)


def test_what_is_set_on_the_network_reaches_a_plan_that_runs_layer_by_layer():
    network = recording(in_list)
    plan = Plan(network, table_of(network), {})
    network.features = mine = []
    plan(batch()[0])
    assert len(mine) == 1
    assert network.features is mine


def test_what_a_hook_leaves_on_a_layer_is_left_on_the_networks_own():
    network = net()
    network.c1.register_forward_hook(lambda module, inputs, output: setattr(module, "last", output))
    plan = Plan(network, table_of(network), {"c1": [1]})
    plan(batch()[0])
    assert network.c1.last.requires_grad


def test_hooks_of_what_holds_layers_never_see_a_trace():
    class Block(nn.Sequential):
        pass

    seen = []
    network = nn.Sequential(
        Block(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).double()
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    table = table_of(network)
    seen.clear()
    plan = Plan(network, table, {"0.0": [1]})
    assert not seen
    plan(batch()[0])
    assert [type(output) for output in seen] == [torch.Tensor]


def test_a_value_that_is_read_is_not_held_as_a_constant():
    network = net(lambda self, x: x * float(self.scale))
    network.register_buffer("scale", torch.tensor(2.0).double())
    assert_like_stock(network)
    network.scale.fill_(3)
    assert_like_stock(network)
