import copy
from dataclasses import replace
from itertools import chain

import pytest
import torch

from neq.backward import Plan, stop_draws
from neq.budget import CostModel, StepSpec, marginal_costs
from neq.budget.knapsack import MarginalCosts, fill_by_rank
from neq.networks.build import build_network
from neq.networks.neurons import NORMS, neuron_table
from neq.training.profiling import SavedBytes
from neq.utils.errors import UserError
from tests.toys import NETWORKS


def some(table, share):
    scores = torch.rand(len(table), generator=torch.Generator().manual_seed(0))
    return table.selection(
        fill_by_rank(
            scores, MarginalCosts.per_neuron(table.parameters), round(share * table.total_parameters)
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_predicted_saved_bytes_are_the_measured_ones(name, norm_mode, share):
    network = NETWORKS[name](num_classes=10).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 32, 32))
    selection = some(table, share)
    before = copy.deepcopy(network.state_dict())
    predicted = CostModel(network, table, StepSpec((4,), (3, 32, 32), norm_mode)).step(selection).saved_bytes
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    plan = Plan(network, table, selection, norm_mode)
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    saved = SavedBytes(chain(network.parameters(), network.buffers(), plan.parameters(), [images]))
    with saved.counting():
        plan(images)
    assert predicted == pytest.approx(saved.total, rel=0.05, abs=64)
    assert predicted > 0


@pytest.mark.parametrize(
    ("name", "norm_mode"),
    [("mobilenet_v2", "train"), *(("resnet18", norm_mode) for norm_mode in ("train", "frontier", "frozen"))],
)
def test_without_the_head_what_is_kept_is_predicted_exactly(name, norm_mode):
    network = NETWORKS[name](num_classes=10).to(memory_format=torch.channels_last)
    stop_draws(network)
    table = neuron_table(network, (3, 32, 32))
    spec = StepSpec((4,), (3, 32, 32), norm_mode, "adam", train_head=False)
    cost, plan = CostModel(network, table, spec).step({}), spec.plan(network, table, {})
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    saved = SavedBytes(chain(network.parameters(), network.buffers(), plan.parameters(), [images]))
    with saved.counting():
        plan(images)
    norms = sum(p.numel() for m in network.modules() if isinstance(m, NORMS) for p in m.parameters())
    trained = norms if norm_mode == "train" else 0
    assert cost.saved_bytes == saved.total
    assert (cost.saved_bytes > 0) is (cost.input_gradient_macs > 0) is bool(trained)
    assert (cost.values, cost.gradient_bytes, cost.optimizer_bytes) == (trained, 4 * trained, 8 * trained)
    assert (cost.parameters, cost.weight_gradient_macs) == (0, 0)
    for unit, base in {"bytes": cost.training_bytes, "macs": cost.backward_macs // 4}.items():
        assert marginal_costs(CostModel(network, table, spec), unit).base == base


def test_operations_and_bytes_in_closed_form():
    network = build_network("mbv2", 10)
    table = neuron_table(network, (3, 64, 64))
    late = {table.layers[-1].name: range(1280)}
    cost = CostModel(network, table, StepSpec((2,), (3, 64, 64), "frozen", "adam")).step(late)
    assert cost.parameters == 320 * 1280
    assert cost.values == 320 * 1280 + 12810
    assert cost.forward_macs == 2 * (table.total_macs + 12800)
    assert cost.input_gradient_macs == 2 * 12800  # the head's: nothing before the last convolution trains
    assert cost.weight_gradient_macs == 2 * (320 * 1280 * 4 + 12800)
    assert cost.gradient_bytes == 4 * cost.values
    assert cost.optimizer_bytes == 8 * cost.values
    assert cost.training_bytes == cost.saved_bytes + 12 * cost.values
    everything = CostModel(network, table, StepSpec((2,), (3, 64, 64), "train")).step(
        {layer.name: range(layer.neurons) for layer in table.layers}
    )
    first = table.layers[0]
    assert everything.macs == 2 * (3 * (table.total_macs + 12800) - first.neurons * first.macs)


def test_norms_that_train_carry_the_gradient_to_the_first_layer():
    network = build_network("mbv2", 10)
    table = neuron_table(network, (3, 64, 64))
    late = {table.layers[-1].name: [0]}
    frozen, train = (
        CostModel(network, table, StepSpec((2,), (3, 64, 64), mode)).step(late)
        for mode in ("frozen", "train")
    )
    first = table.layers[0]
    assert frozen.input_gradient_macs == 2 * 12800
    assert train.input_gradient_macs == 2 * (table.total_macs + 12800 - first.neurons * first.macs)
    assert train.saved_bytes > 5 * frozen.saved_bytes


@pytest.mark.slow
def test_a_byte_budget_is_a_matter_of_layers_not_of_parameters():
    """The same parameters in the last layers or spread over all of them."""
    network = build_network("mbv2", 10)
    table = neuron_table(network, (3, 64, 64))
    spread = some(table, 0.2)
    late = table.selection(
        fill_by_rank(
            torch.arange(len(table)).double(),
            MarginalCosts.per_neuron(table.parameters),
            round(0.2 * 2189760),
        )
    )
    costs = [
        CostModel(network, table, StepSpec((2,), (3, 64, 64), "frozen")).step(chosen)
        for chosen in (spread, late)
    ]
    assert costs[0].parameters == pytest.approx(costs[1].parameters, rel=0.01)
    assert costs[0].saved_bytes > 3 * costs[1].saved_bytes


class Twice(torch.nn.Module):
    """A layer that is called before and after another."""

    def __init__(self):
        super().__init__()
        self.i, self.a, self.b = (torch.nn.Conv2d(inputs, 8, 3, padding=1) for inputs in (3, 8, 8))
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.a(self.b(self.a(self.i(x)))).mean((2, 3)))


def test_a_layer_called_again_behind_the_earliest_chosen_one_counts():
    network = Twice()
    table = neuron_table(network, (3, 8, 8))
    step = CostModel(network, table, StepSpec((1,), (3, 8, 8), "frozen")).step({"b": [0]})
    assert step.input_gradient_macs >= 8 * 8 * 9 * 64 + 16


@pytest.mark.slow
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "mcunet-in1"])
def test_under_autocast_too(name, norm_mode):
    network = NETWORKS[name](num_classes=10).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 32, 32))
    selection = some(table, 0.1)
    predicted = (
        CostModel(network, table, StepSpec((2,), (3, 32, 32), norm_mode, precision="bf16"))
        .step(selection)
        .saved_bytes
    )
    plan = Plan(network, table, selection, norm_mode)
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    saved = SavedBytes(chain(network.parameters(), network.buffers(), plan.parameters(), [images]))
    with saved.counting(), torch.autocast("cpu", torch.bfloat16):
        plan(images)
    assert saved.total <= predicted + 64
    assert predicted <= 1.05 * saved.total + 64


def measured_bytes(network, plan, batches, precision="fp32"):
    """What forward passes keep together, in reality."""
    saved = SavedBytes(chain(network.parameters(), network.buffers(), plan.parameters(), batches))
    outputs = []
    for images in batches:
        with saved.counting(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs.append(plan(images))
    assert all(output.requires_grad for output in outputs)
    return saved.total


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mcunet-in1", "vit"])
def test_every_forward_pass_of_a_step_is_counted(name, norm_mode, precision):
    """As of a task with a second data loader: both passes are kept until the one backward pass."""
    network = NETWORKS[name](num_classes=10).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 32, 32))
    selection = some(table, 0.1)
    spec = StepSpec((4, 3), (3, 32, 32), norm_mode, precision=precision)
    both = CostModel(network, table, spec).step(selection)
    alone = CostModel(network, table, StepSpec((4,), (3, 32, 32), norm_mode, precision=precision))
    plan = Plan(network, table, selection, norm_mode)
    batches = [
        torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last) for images in (4, 3)
    ]
    measured = measured_bytes(network, plan, batches, precision)
    assert measured <= both.saved_bytes + 64
    assert both.saved_bytes <= 1.05 * measured + 64
    assert both.saved_bytes > 1.3 * alone.step(selection).saved_bytes
    assert both.forward_macs == 7 * (table.total_macs + table.head_macs)
    assert both.gradient_bytes == alone.step(selection).gradient_bytes


def test_a_micro_batch_keeps_its_own_images_alone():
    network = build_network("mcunet-in1", 10).to(memory_format=torch.channels_last)
    table = neuron_table(network, (3, 32, 32))
    selection = some(table, 0.1)
    whole, small = (StepSpec((8,), (3, 32, 32), micro_batch=micro) for micro in (None, 3))
    assert small.kept_together == (3,)
    plan = Plan(network, table, selection, "frontier")
    images = torch.randn(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    cost = CostModel(network, table, small).step(selection)
    assert cost.saved_bytes == pytest.approx(measured_bytes(network, plan, [images]), rel=0.01, abs=64)
    assert cost.macs == CostModel(network, table, whole).step(selection).macs


@pytest.mark.slow
def test_what_a_task_adds_counts_in_every_selection_and_in_the_base_of_a_budget():
    network = build_network("mcunet-in1", 10)
    table = neuron_table(network, (3, 32, 32))
    spec = StepSpec((4,), (3, 32, 32), "frozen", "adam")
    plain = CostModel(network, table, spec)
    extra = CostModel(network, table, replace(spec, extra_bytes=1000, extra_saved_bytes=300))
    for selection in ({}, some(table, 0.1)):
        ours, theirs = extra.step(selection), plain.step(selection)
        assert ours.saved_bytes == theirs.saved_bytes + 300
        assert ours.gradient_bytes == theirs.gradient_bytes + 1000
        assert ours.optimizer_bytes == theirs.optimizer_bytes + 2000
    ours, theirs = (marginal_costs(model, "bytes") for model in (extra, plain))
    assert ours.base == theirs.base + 3300
    for term in ("neuron", "opening", "depth"):
        assert torch.equal(getattr(ours, term), getattr(theirs, term))


class Branching(torch.nn.Module):
    """Two layers and a head; what runs between them is given."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)
        self.head, self.between, self.last = torch.nn.Linear(4, 5), between, None

    def forward(self, x):
        x = self.between(self, self.first(x))
        return self.head(self.second(input=x).mean((2, 3)))


DATA_DEPENDENT = {
    "branch": lambda network, x: x if x.mean() > 1e9 else x.relu(),
    "item": lambda network, x: x * x.detach().mean().item(),
    "shape": lambda network, x: x + len(x.nonzero()),
    "numpy": lambda network, x: x + float(x.detach().numpy().sum()),
}


@pytest.mark.parametrize("between", DATA_DEPENDENT.values(), ids=DATA_DEPENDENT)
def test_a_forward_that_depends_on_values_is_refused_where_bytes_are_counted(between):
    network = Branching(between)
    table = neuron_table(network, (3, 8, 8))
    model = CostModel(network, table, StepSpec((2,), (3, 8, 8)))
    with pytest.raises(UserError, match="Branching keeps for backward cannot be counted"):
        model.step({"first": [0]})
    assert marginal_costs(model, "macs").base > 0
    Plan(network, table, {"first": [0]})(torch.randn(2, 3, 8, 8)).sum().backward()


def test_layers_called_by_keyword_and_networks_that_record_features_are_counted():
    def record(network, x):
        network.last = x
        return x

    plain, recording = Branching(lambda network, x: x), Branching(record)
    table = neuron_table(recording, (3, 8, 8))
    Plan(recording, table, {"first": [0]})(torch.randn(2, 3, 8, 8))
    assert recording.last.requires_grad  # which copy.deepcopy refuses
    costs = [
        CostModel(network, table, StepSpec((2,), (3, 8, 8))).step({"first": [0]})
        for network in (plain, recording)
    ]
    assert costs[0] == costs[1]
