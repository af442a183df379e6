import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan
from neq.backward.trainable import checked, trainable_slices, trained_values, values_of
from neq.budget import CostModel, StepSpec
from neq.networks.neurons import neuron_table
from neq.networks.parameter_slice import ParameterSlice
from neq.utils.errors import UserError
from tests.toys import SHAPE, batch, toy


def test_what_trains_in_each_norm_mode():
    network = toy()
    table = neuron_table(network, SHAPE)
    norms = {"train": {"norm1", "norm2", "norm3"}, "frontier": {"norm2", "norm3"}, "frozen": set()}
    for norm_mode, expected in norms.items():
        slices = trainable_slices(network, table, {"grouped": [3]}, norm_mode)
        assert {name.partition(".")[0] for name in slices} == {"grouped", "head"} | expected
        assert slices["grouped.weight"].index.tolist() == [3]
        assert slices["head.weight"].is_whole


def test_a_layer_of_which_every_channel_is_chosen_trains_whole():
    network = toy()
    slices = trainable_slices(network, neuron_table(network, SHAPE), {"hidden": range(16)}, "frozen")
    assert slices["hidden.weight"].is_whole
    assert slices["hidden.bias"].is_whole


def test_values_are_counted():
    network = toy()
    table = neuron_table(network, SHAPE)
    slices = trainable_slices(network, table, {"hidden": [2, 7]}, "frozen")
    assert trained_values(network, table, slices) == {"weights": 48, "biases": 2, "norms": 0, "head": 85}
    assert values_of(network, "hidden.weight", ParameterSlice(torch.tensor([1, 2]), axis=1)) == 32


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ({"head": [0]}, "selectable layer 'head' is unknown"),
        ({"hidden": [16]}, r"has the channels 0 \.\. 15, not \[16\]"),
        ({"hidden": [3, 3]}, "must be ascending, each once"),
        ({"hidden": [3, 1]}, "must be ascending, each once"),
    ],
)
def test_a_wrong_selection_is_refused(selection, reason):
    with pytest.raises(UserError, match=reason):
        checked(neuron_table(toy(), SHAPE), selection)


def test_a_layer_without_channels_is_left_out():
    assert checked(neuron_table(toy(), SHAPE), {"hidden": [], "stem": [1]}).keys() == {"stem"}


class Tied(nn.Module):
    """Two batch norms with one weight; the one that is called last is registered first."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.second.weight = self.first.weight
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.c.bias = self.b.bias
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.first(self.a(x)).relu()
        return self.head(self.c(self.second(self.b(x)).relu()).mean((2, 3)))


def tied(norm_mode, selection):
    torch.manual_seed(0)
    network = Tied().double()
    table = neuron_table(network, SHAPE)
    return network, Plan(network, table, selection, norm_mode)


def test_a_tensor_of_several_modules_is_stepped_once():
    everything = {"a": range(8), "b": range(8), "c": range(8)}
    network, plan = tied("train", everything)
    stock = copy.deepcopy(network).train()
    parameters = list(plan.parameters())
    assert len(parameters) == len(set(map(id, parameters))) == len(list(stock.parameters()))
    images, labels = batch()
    for model, trained in ((plan, parameters), (stock, stock.parameters())):
        optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    plan.write_back()
    for name, value in stock.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=1e-12)
    assert sum(plan.trained_values().values()) == sum(p.numel() for p in stock.parameters())
    step = CostModel(network, plan.table, StepSpec((6,), SHAPE, "train", "adam")).step(everything)
    assert step.gradient_bytes == sum(p.grad.nbytes for p in parameters)
    # The first layer passes no gradient on, the head and the others do.
    assert step.input_gradient_macs == 6 * (8 * 72 * (8 * 8 + 6 * 6) + 40)


@pytest.mark.parametrize("norm_mode", ["frontier", "frozen"])
def test_a_tensor_of_several_modules_stays_where_one_of_them_is_frozen(norm_mode):
    network, plan = tied(norm_mode, {"b": [1, 2], "c": [2, 5]})
    before = copy.deepcopy(network.state_dict())
    assert {"first.weight", "second.weight", "b.bias", "c.bias"}.isdisjoint(plan.parts)
    assert ("second.bias" in plan.parts) == (norm_mode == "frontier")
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1)
    images, labels = batch()
    F.cross_entropy(plan(images), labels).backward()
    optimizer.step()
    plan.write_back()
    for name in ("first.weight", "second.weight", "b.bias", "c.bias"):
        assert torch.equal(network.state_dict()[name], before[name])
    assert not torch.equal(network.b.weight, before["b.weight"])


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head.weight = self.hidden.weight

    def forward(self, x):
        return self.head(self.hidden(self.stem(x).mean((2, 3))))


def test_a_head_that_shares_a_tensor_is_refused():
    network = TiedHead()
    with pytest.raises(UserError, match=r"hidden\.weight and head\.weight are one tensor"):
        Plan(network, neuron_table(network, SHAPE), {"stem": [0]})


def test_the_head_may_be_left_out():
    network = toy()
    slices = trainable_slices(network, neuron_table(network, SHAPE), {}, "train", train_head=False)
    norms = ("norm1", "norm2", "norm3")
    assert slices.keys() == {f"{norm}.{key}" for norm in norms for key in ("weight", "bias")}
    tied = TiedHead()
    table = neuron_table(tied, SHAPE)
    assert not trainable_slices(tied, table, {}, "train", train_head=False)
    assert trainable_slices(tied, table, {"stem": [1]}, "train", train_head=False).keys() == {
        "stem.weight",
        "stem.bias",
    }
