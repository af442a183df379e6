"""Int8 convolutions in neuron table, plan, cost model and policies."""

import copy

import pytest
import torch
import torch.nn.functional as F

from neq.backward import Plan
from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec, marginal_costs
from neq.budget.latency import TERMS, Latency
from neq.config import POLICIES
from neq.int8 import INT8_CONV, Int8Network
from neq.networks import neuron_table
from neq.selection import SelectionState, StaticScheme, previous_values, similarity, su
from neq.training.profiling import SavedBytes
from tests.int8.reference import latent, reference_network
from tests.int8.toys import description, excited, images

SHAPE = (3, 16, 16)
LAYERS = [
    ("first_conv", 8, 27),
    ("blocks.0.depthwise", 8, 9),
    ("blocks.0.pointwise2", 8, 8),
    ("blocks.1.pointwise1", 16, 8),
    ("blocks.1.depthwise", 16, 25),
    ("blocks.1.pointwise2", 8, 16),
]


@pytest.fixture
def network(tmp_path):
    made = Int8Network(description(tmp_path))
    made.load_state_dict(latent(description(tmp_path)), strict=False)
    return made.to(memory_format=torch.channels_last)


def batch():
    return images(6).contiguous(memory_format=torch.channels_last), torch.arange(6) % 5


def reference(network):
    """Gradients of the batch's loss by name, from the straight-through reference."""
    images_, labels = batch()
    tensors = {name: p.detach().double().requires_grad_() for name, p in network.named_parameters()}
    F.cross_entropy(reference_network(network.describe(), images_, tensors), labels).backward()
    return {name: tensor.grad for name, tensor in tensors.items()}


def test_its_neurons_are_counted(network):
    table = neuron_table(network, SHAPE)
    assert [(each.name, each.neurons, each.parameters) for each in table.layers] == LAYERS
    assert {each.kind for each in table.layers} == {INT8_CONV}
    assert [each.macs for each in table.layers] == [parameters * 64 for *_, parameters in LAYERS]
    assert (table.head, table.head_macs, table.unselectable) == ("classifier", 40, ())
    by_input = neuron_table(network, SHAPE, unit="input_channel")
    assert [(each.neurons, each.axis) for each in by_input.layers] == [
        *((3, 1), (8, 0), (8, 1), (8, 1), (16, 0), (16, 1)),
    ]


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
@pytest.mark.parametrize(
    ("selection", "biases"),
    [
        ({"blocks.1.pointwise1": [0, 5], "blocks.1.depthwise": [2, 3, 9]}, ()),
        ({"first_conv": [1], "blocks.0.pointwise2": [0, 1, 2, 3, 4, 5, 6, 7]}, ("blocks.1.pointwise2",)),
        ({}, ("blocks.1.depthwise", "blocks.1.pointwise2")),
        ({"blocks.0.depthwise": [7]}, ("blocks.0.depthwise",)),
    ],
)
def test_the_gradients_of_a_plan_are_those_of_the_reference(network, unit, selection, biases):
    images_, labels = batch()
    plan = Plan(network, neuron_table(network, SHAPE, unit=unit), selection, "frontier", biases)
    outputs = plan(images_)
    F.cross_entropy(outputs, labels).backward()
    with torch.no_grad():
        assert torch.equal(outputs, network(images_))
    right = reference(network)
    leaves = dict(plan.named_parameters())
    weights = {f"{name}.weight" for name in selection}
    assert weights | {f"{name}.bias" for name in biases} <= leaves.keys()
    for name, leaf in leaves.items():
        part = plan.parts[name].take(right[name])
        torch.testing.assert_close(leaf.grad.double(), part, rtol=1e-4, atol=1e-4 * float(part.abs().max()))


@pytest.mark.parametrize(
    "selection",
    [
        {"stem": [0, 3], "hidden": [5]},
        {"block.squeeze": [1, 2]},
        {"block.excite": [7], "block.expand": [0, 9]},
    ],
)
def test_gradients_pass_products_tables_and_max_pooling(selection):
    network = Int8Network(excited()).to(memory_format=torch.channels_last)
    network.load_state_dict(latent(excited()), strict=False)
    images_, labels = batch()
    plan = Plan(network, neuron_table(network, SHAPE), selection)
    F.cross_entropy(plan(images_), labels).backward()
    right, leaves = reference(network), dict(plan.named_parameters())
    assert {f"{name}.weight" for name in selection} <= leaves.keys()
    for name, leaf in leaves.items():
        part = plan.parts[name].take(right[name])
        torch.testing.assert_close(leaf.grad.double(), part, rtol=1e-4, atol=1e-4 * float(part.abs().max()))


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_frozen_codes_stay_bit_identical(network, unit):
    images_, labels = batch()
    before = copy.deepcopy(network.state_dict())
    selection = {"blocks.1.pointwise1": [0, 5], "blocks.1.depthwise": [2]}
    plan = Plan(
        network, neuron_table(network, SHAPE, unit=unit), selection, bias_layers=("blocks.1.pointwise2",)
    )
    optimizer = torch.optim.SGD(plan.parameters(), lr=30.0, momentum=0.9)
    for _ in range(3):
        F.cross_entropy(plan(images_), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
    after, parts = network.state_dict(), plan.parts
    for name, tensor in after.items():
        moved = tensor != before[name]
        if name not in parts:
            assert not moved.any(), name
        elif parts[name].index is not None:
            others = moved.transpose(0, parts[name].axis).clone()
            assert others[parts[name].index].any(), name
            others[parts[name].index] = False
            assert not others.any(), name
        else:
            assert moved.any(), name


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_its_cost_is_what_a_step_keeps(network, unit):
    table = neuron_table(network, SHAPE, unit=unit)
    images_, _ = batch()
    for selection, biases in (
        ({}, ()),
        ({"blocks.1.pointwise1": [0, 5]}, ()),
        ({"first_conv": [0, 1, 2], "blocks.1.depthwise": [2, 3, 9]}, ("blocks.1.pointwise1",)),
        (
            {
                name: list(range(table.slice_of(name).stop - table.slice_of(name).start))
                for name, *_ in LAYERS
            },
            (),
        ),
    ):
        spec = StepSpec((6,), SHAPE, "frozen", bias_layers=biases)
        cost = CostModel(network, table, spec).step({name: torch.tensor(c) for name, c in selection.items()})
        plan = Plan(network, table, selection, "frozen", biases)
        saved = SavedBytes([*network.parameters(), *network.buffers(), *plan.parameters()])
        with saved.counting():
            plan(images_)
        assert cost.saved_bytes == saved.total


def test_the_cost_of_products_tables_and_max_pooling_is_what_a_step_keeps():
    network = Int8Network(excited()).to(memory_format=torch.channels_last)
    table = neuron_table(network, SHAPE)
    images_, _ = batch()
    for selection in (
        {"stem": [0, 3]},
        {"block.expand": [1]},
        {"block.squeeze": [2]},
        {"hidden": [0, 5]},
        {},
    ):
        cost = CostModel(network, table, StepSpec((6,), SHAPE, "frozen"))
        step = cost.step({name: torch.tensor(chosen) for name, chosen in selection.items()})
        plan = Plan(network, table, selection, "frozen")
        saved = SavedBytes([*network.parameters(), *network.buffers(), *plan.parameters()])
        with saved.counting():
            plan(images_).sum().backward()
        assert step.saved_bytes == saved.total


def test_the_first_layer_that_trains_keeps_its_chosen_inputs_and_gates_follow(network):
    table = neuron_table(network, SHAPE, unit="input_channel")
    model = CostModel(network, table, StepSpec((6,), SHAPE, "frozen"))
    none = model.step({}).saved_bytes
    index = 2 * 8  # the slice's index, int64, is read by the bias alone, which is frozen here
    one = model.step({"blocks.1.pointwise2": torch.tensor([3, 4])}).saved_bytes
    pixels = 6 * 64
    # Two input channels as int8; the gates of the layer's 8 results and of the residual's.
    assert one - none - 2 * pixels - 2 * 8 * pixels // 8 in (0, index)
    added = marginal_costs(model, "bytes")
    assert added.opening[-1] >= 0


def test_a_scheme_ranks_its_real_weights(network):
    table = neuron_table(network, SHAPE)
    scores = su.score(SelectionState(table, network, torch.Generator(), StaticScheme((3,), (0.25,))))
    conv = network.get_submodule("blocks.1.pointwise1")
    real = INT8_CONV.weight(conv)
    assert torch.equal(real, conv.codes()[0] * conv.scales.view(-1, 1, 1, 1))
    largest = real.double().flatten(1).norm(dim=1).argsort(descending=True)[:4].sort().values
    assert torch.equal(table.selection(scores > 0)["blocks.1.pointwise1"], largest)


def test_a_velocity_is_measured(network):
    table = neuron_table(network, SHAPE)
    images_, _ = batch()
    plan = Plan(network, table, {"blocks.1.pointwise2": [0]})
    previous = previous_values(network, plan.parts)
    with torch.no_grad():
        network.get_submodule("blocks.1.pointwise2").weight[0].neg_()
    phi = similarity(network, table, images_, previous)
    assert torch.equal(phi[:-8], torch.ones(len(table) - 8, dtype=torch.float64))
    assert phi[-8] < 0.9
    assert torch.equal(phi[-7:], torch.ones(7, dtype=torch.float64))


def test_a_network_with_a_changed_forward_is_left_alone(network):
    conv = network.get_submodule("first_conv")
    conv.forward = lambda x: x
    assert not INT8_CONV.matches(conv)


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
@pytest.mark.parametrize("budget_unit", ["parameters", "bytes", "macs", "time"])
def test_a_budget_in_any_unit_is_filled_and_never_exceeded(network, unit, budget_unit):
    table = neuron_table(network, SHAPE, unit=unit)
    model = CostModel(network, table, StepSpec((6,), SHAPE, "frozen", "sgd"))
    latency = Latency(dict.fromkeys(TERMS, 10.0), 0.0)
    for seed, ratio in enumerate((0.4, 0.6, 0.8)):
        budget = Budget(budget_unit, ratio=ratio)
        allocator = BudgetAllocator(model, budget, lambda: latency.times(model))
        state = SelectionState(table, network, torch.Generator().manual_seed(seed))
        found = allocator.choose(POLICIES["random"], state)
        step = model.step(table.selection(found.chosen))
        exact = {
            "parameters": step.parameters,
            "bytes": step.training_bytes,
            "macs": (step.input_gradient_macs + step.weight_gradient_macs) // 6,
            "time": latency.times(model).of(found.chosen),
        }
        assert found.used == exact[budget_unit] <= found.limit < allocator.total
        assert 0 < int(found.chosen.sum()) < len(table)
