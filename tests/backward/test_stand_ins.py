"""A kind of layer that neq does not know: a convolution whose weight is int8 values and a scale."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function

from neq.backward import (
    Plan,
    StandIn,
    carry_optimizer_state,
    optimizer_state,
    register_stand_in,
    stand_ins,
)
from neq.backward.module_views import shadow
from neq.budget import CostModel, StepSpec, marginal_costs
from neq.networks import ByteWidths, LayerKind, layer_kinds, neuron_table, register_layer_kind
from neq.selection import SelectionState, StaticScheme, listed_parameters, previous_values, similarity, su
from neq.training.profiling import SavedBytes
from neq.utils.errors import UserError

SHAPE = (3, 8, 8)


class QuantizedConv(nn.Module):
    """y = conv(x, scale_O * weight_OIKL) + bias, padded to the size of x; weight int8, not a parameter."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        exact = torch.randn(outputs, inputs, 3, 3) / inputs
        scale = exact.flatten(1).abs().amax(1) / 100
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (exact / scale.view(-1, 1, 1, 1)).round().to(torch.int8))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return F.conv2d(x, KIND.weight(self), self.bias, padding=1)


class QuantizedConvKind(LayerKind):
    name = "quantized conv"
    is_conv = True

    def matches(self, module):
        return type(module) is QuantizedConv

    def widths(self, module):
        return ByteWidths(gradient=4, state=4, saved_input=1)

    def weight(self, module):
        return module.weight * module.scale.view(-1, 1, 1, 1)

    def put(self, module, part, values):
        scale = module.scale if part.index is None else module.scale[part.index]
        part.put(module.weight, (values / scale.view(-1, 1, 1, 1)).round().clamp(-127, 127).to(torch.int8))

    def neurons_last(self, output):
        return output.movedim(1, -1)


KIND = QuantizedConvKind()


class QuantizedConvFunction(Function):
    """Keeps its input in int8, and no more than that."""

    @staticmethod
    def forward(ctx, x, weight_slice, whole, bias, index):
        step = x.detach().abs().amax() / 127
        ctx.index, ctx.shape = index, whole.shape
        kept = (x / step).round().to(torch.int8) if ctx.needs_input_grad[1] else None
        ctx.step = step
        ctx.save_for_backward(kept, whole if ctx.needs_input_grad[0] else None)
        return F.conv2d(x, whole, bias, padding=1)

    @staticmethod
    def backward(ctx, grad):
        kept, whole = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = F.conv_transpose2d(grad, whole, padding=1)
        if ctx.needs_input_grad[1]:
            of_chosen = grad if ctx.index is None else grad[:, ctx.index]
            shape = (of_chosen.shape[1], *ctx.shape[1:])
            grad_weight = nn.grad.conv2d_weight(kept * ctx.step, shape, of_chosen, padding=1)
        if ctx.needs_input_grad[3]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, None, grad_bias, None


def quantized_stand_in(module, trains):
    made = shadow(module)

    def forward(x):
        whole, index = KIND.weight(module), trains.part.index
        if trains.weight is not None:
            whole = (
                trains.weight.detach()
                if index is None
                else whole.index_copy(0, index, trains.weight.detach())
            )
        return QuantizedConvFunction.apply(x, trains.weight, whole, trains.bias(), index)

    made.forward = forward
    return made


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """The kind is registered while a test runs."""
    monkeypatch.setattr(layer_kinds, "_kinds", dict(layer_kinds._kinds))
    monkeypatch.setattr(stand_ins, "_stand_ins", dict(stand_ins._stand_ins))
    register_layer_kind(KIND)
    register_stand_in(KIND, StandIn(quantized_stand_in))


def quantized_network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), QuantizedConv(4, 8), nn.BatchNorm2d(8), nn.ReLU()),
        *(QuantizedConv(8, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )


def images_and_labels():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(10) % 5
    return torch.randn(10, *SHAPE, generator=generator) + labels.view(-1, 1, 1, 1), labels


def test_its_neurons_are_counted():
    table = neuron_table(quantized_network(), SHAPE)
    found = [(layer.name, layer.kind.name, layer.neurons, layer.parameters) for layer in table.layers]
    assert found == [("0", "conv", 4, 27), ("2", KIND.name, 8, 36), ("5", KIND.name, 6, 72)]
    assert [layer.macs for layer in table.layers] == [27 * 64, 36 * 64, 72 * 64]
    assert table.layers[1].norm == "3"


def test_a_scheme_counts_it_among_the_convs_and_ranks_its_values():
    network = quantized_network()
    table = neuron_table(network, SHAPE)
    scheme = StaticScheme((2,), (0.5,))
    assert listed_parameters(table, scheme) == 3 * 72
    scores = su.score(SelectionState(table, network, torch.Generator(), scheme))
    norms = KIND.weight(network[5]).double().flatten(1).norm(dim=1)
    largest = norms.argsort(descending=True)[:3].sort().values
    assert torch.equal(table.selection(scores > 0)["5"], largest)


def test_the_gradients_of_chosen_channels_are_those_of_a_convolution():
    network = quantized_network()
    images, labels = images_and_labels()
    plan = Plan(network, neuron_table(network, SHAPE), {"2": [1, 6], "5": [0, 5]}, "frozen")
    F.cross_entropy(plan(images), labels).backward()
    stock = copy.deepcopy(network).eval()
    for name in ("2", "5"):
        module = stock.get_submodule(name)
        conv = nn.Conv2d(*module.weight.shape[1::-1], 3, padding=1)
        conv.weight.data, conv.bias.data = KIND.weight(module), module.bias.data
        stock.set_submodule(name, conv)
    F.cross_entropy(stock(images), labels).backward()
    leaves = dict(plan.named_parameters())
    assert leaves["2.weight"].shape == (2, 4, 3, 3)
    for name, leaf in leaves.items():
        right = plan.parts[name].take(stock.get_parameter(name).grad)
        assert (leaf.grad - right).norm() <= 0.02 * right.norm(), name  # inputs are kept in int8


@pytest.mark.parametrize("selection", [{"2": [1, 6], "5": [0]}, {"2": list(range(8))}])
def test_training_moves_the_stored_values_of_the_chosen_channels_alone(selection):
    network = quantized_network()
    table = neuron_table(network, SHAPE)
    images, labels = images_and_labels()
    before = copy.deepcopy(network.state_dict())
    plan = Plan(network, table, selection, "frozen")
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.3, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(plan(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    for name in ("2", "5"):
        moved = (network.state_dict()[f"{name}.weight"] != before[f"{name}.weight"]).flatten(1).any(1)
        assert moved.nonzero().flatten().tolist() == list(selection.get(name, []))
    assert torch.equal(network[0].weight, before["0.weight"])
    after = Plan(network, table, {"2": [6, 7]}, "frozen")
    fresh = torch.optim.SGD(after.parameters(), lr=0.3, momentum=0.9)
    carry_optimizer_state(optimizer_state(optimizer, plan), fresh, after)
    momentum = fresh.state[dict(after.named_parameters())["2.weight"]]["momentum_buffer"]
    assert momentum.flatten(1).any(1).tolist() == [True, 7 in selection["2"]]


def test_a_checkpoint_that_is_loaded_reaches_the_trained_channels():
    network = quantized_network()
    plan = Plan(network, neuron_table(network, SHAPE), {"2": [1]}, "frozen")
    network[2].weight.fill_(1)
    plan(images_and_labels()[0])
    assert torch.allclose(dict(plan.named_parameters())["2.weight"], network[2].scale[1].expand(1, 4, 3, 3))


def test_its_cost_is_counted_with_its_own_widths():
    network = quantized_network()
    table = neuron_table(network, SHAPE)
    model = CostModel(network, table, StepSpec((10,), SHAPE, "frozen"))
    selection = {"2": torch.tensor([1, 6])}
    cost = model.step(selection)
    head = 6 * 5 + 5
    assert cost.parameters == 2 * 36
    assert cost.gradient_bytes == cost.optimizer_bytes == 4 * (2 * 36 + 2 + head)
    plan = Plan(network, table, selection, "frozen")
    weights = [*network.parameters(), *network.buffers(), *plan.parameters()]
    saved = SavedBytes(weights)
    images, _ = images_and_labels()
    with saved.counting():
        plan(images.contiguous(memory_format=torch.channels_last))
    # Weights that are dequantized at every call are no parameters: autograd keeps them.
    assert cost.saved_bytes == saved.total
    none = model.step({})
    kept = model.step({"5": torch.tensor([0])}).saved_bytes - none.saved_bytes
    assert kept == 10 * 8 * 8 * 8 + 8  # its input, a byte a value, and the index of its chosen bias


def test_what_a_neuron_adds_is_counted_with_its_own_widths():
    network = quantized_network()
    found = marginal_costs(
        CostModel(network, neuron_table(network, SHAPE), StepSpec((10,), SHAPE, "frozen")), "bytes"
    )
    assert found.neuron[-1] == 2 * 4 * (72 + 1)
    assert found.opening[-1] == 10 * 8 * 8 * 8


def test_a_velocity_is_measured():
    network = quantized_network()
    table = neuron_table(network, SHAPE)
    images, _ = images_and_labels()
    plan = Plan(network, table, {"2": [1], "5": [0]}, "frozen")
    previous = previous_values(network, plan.parts)
    network[5].weight[0].neg_()
    phi = similarity(network, table, images, previous)
    assert torch.equal(phi[:-6], torch.ones(12, dtype=torch.float64))
    assert phi[-6] == pytest.approx(-1)
    assert torch.equal(phi[-5:], torch.ones(5, dtype=torch.float64))


def test_a_kind_without_a_stand_in_is_refused(monkeypatch):
    monkeypatch.delitem(stand_ins._stand_ins, KIND.name)
    network = quantized_network()
    with pytest.raises(UserError, match="layer kind 'quantized conv' has no stand-in"):
        Plan(network, neuron_table(network, SHAPE), {})


def test_a_kind_has_one_stand_in():
    with pytest.raises(ValueError, match="has a stand-in already"):
        register_stand_in(KIND, StandIn(quantized_stand_in))
