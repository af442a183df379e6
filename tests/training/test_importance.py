import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.networks.neurons import neuron_table
from neq.selection import CRITERIA
from neq.tasks import StepOutput
from neq.training.importance import measure_importance, pass_bytes, plan_passes
from neq.training.profiling import SavedBytes
from tests.toys import SHAPE, batch, toy

BATCHES = [batch(seed=seed, size=8) for seed in (1, 2, 3)]
EVERYTHING = Budget(ratio=1.0)


class Labelled:
    """A task over fixed batches."""

    steps_per_epoch, share, forwards = len(BATCHES), 1.0, 1

    def __init__(self, cut=True):
        self.has_micro_batches = cut

    def batches(self, epoch, start):
        return iter(BATCHES[start:])

    def micro_batches(self, whole, parts):
        if not self.has_micro_batches:
            yield whole, 1.0
            return
        for part in zip(*(each.tensor_split(parts) for each in whole), strict=True):
            yield part, len(part[0]) / len(whole[0])

    def step(self, forward, given):
        return StepOutput(F.cross_entropy(forward(given[0]), given[1]), {})


def loss_of(plan, given):
    return F.cross_entropy(plan(given[0]), given[1])


def allocator_of(network, budget, unit="neuron", norm_mode="frozen"):
    table = neuron_table(network, SHAPE, unit=unit)
    return BudgetAllocator(CostModel(network, table, StepSpec((8,), SHAPE, norm_mode, "sgd")), budget)


def measured(network, allocator, criterion, batches=3, task=None):
    return measure_importance(
        network, allocator, task or Labelled(), CRITERIA[criterion], (0, batches), 0, loss_of
    ).neurons


def gradients(network, images, labels):
    """Gradients of the stock network in eval mode, by layer, a row for each neuron."""
    stock = copy.deepcopy(network).eval()
    F.cross_entropy(stock(images), labels).backward()
    return stock


def reference(network, table, criterion):
    """Each criterion's formula, on gradients that stock autograd computes."""
    found = torch.zeros(len(table), dtype=torch.float64)
    whole = gradients(network, *(torch.cat(each) for each in zip(*BATCHES, strict=True)))
    by_batch = [gradients(network, *each) for each in BATCHES]
    by_image = [gradients(network, x[None], y[None]) for each in BATCHES for x, y in zip(*each, strict=True)]
    for layer in table.layers:
        for channel in range(layer.neurons):

            def row(of, layer=layer, channel=channel, key="grad"):
                weight = of.get_submodule(layer.name).weight
                tensor = weight.grad if key == "grad" else weight.detach()
                return tensor.select(layer.axis, channel).flatten()

            w, g = row(network, key="weight"), row(whole)
            found[table.slice_of(layer.name).start + channel] = {
                "gradient_norm": lambda g=g, **_: g.norm(),
                "loss_decrease": lambda g=g, **_: g.square().sum(),
                "relative_gradient": lambda g=g, w=w: g.norm() / w.norm(),
                "squared_gradient": lambda row=row, **_: sum(row(b).square().sum() for b in by_batch) / 3,
                "fisher": lambda row=row, w=w, **_: sum((w @ row(n)).square() for n in by_image) / (2 * 24),
            }[criterion]()
    return found


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_importance_is_the_formulas_on_gradients_of_the_stock_network(criterion, unit):
    network = toy()
    allocator = allocator_of(network, EVERYTHING, unit)
    expected = reference(network, allocator.model.table, criterion)
    assert float(expected.min()) >= 0
    torch.testing.assert_close(measured(network, allocator, criterion), expected, rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_limit_in_bytes_changes_how_importance_is_measured_and_not_what_it_is(criterion):
    network = toy()
    free = allocator_of(network, EVERYTHING)
    tight = allocator_of(network, Budget("bytes", ratio=0.15))
    assert len(plan_passes(network, tight, criterion == "fisher", can_split=True).groups) > 1
    whole, found = (measured(network, each, criterion) for each in (free, tight))
    affordable = found > 0
    assert 0 < int(affordable.sum()) <= len(found)
    torch.testing.assert_close(found[affordable], whole[affordable], rtol=1e-5, atol=0)


@pytest.mark.parametrize("ratio", [0.15, 0.3, 0.6])
def test_no_pass_keeps_more_than_the_budget(ratio):
    network = toy()
    allocator = allocator_of(network, Budget("bytes", ratio=ratio))
    passes = plan_passes(network, allocator, per_image=False, can_split=True)
    seen = 0
    for group in passes.groups:
        plan = passes.spec.plan(network, allocator.model.table, group)
        for part, _ in Labelled().micro_batches(BATCHES[0], passes.spec.parts):
            kept = SavedBytes([*network.parameters(), *network.buffers(), *plan.parameters()])
            with kept.counting():
                loss = plan(part[0]).sum()
            loss.backward()
            held = sum(leaf.grad.nbytes for leaf in plan.parameters())
            assert kept.total + held <= allocator.limit
            seen += 1
    assert seen
    assert pass_bytes(network, allocator) == allocator.limit


@pytest.mark.parametrize("budget", [EVERYTHING, Budget("bytes", ratio=9.0)])
def test_no_pass_has_more_images_than_a_micro_batch_of_the_run(budget):
    network = toy()
    allocator = allocator_of(network, budget)
    model = allocator.model
    assert plan_passes(network, allocator, per_image=False, can_split=True).spec.kept_together[0] > 2
    cut = CostModel(network, model.table, replace(model.spec, micro_batch=2))
    passes = plan_passes(network, BudgetAllocator(cut, budget), per_image=False, can_split=True)
    assert 1 <= passes.spec.kept_together[0] <= 2


def test_what_no_selection_can_hold_is_not_measured():
    network = toy()
    allocator = allocator_of(network, Budget("bytes", ratio=0.2))
    found, costs = measured(network, allocator, "gradient_norm"), allocator.costs
    for number, layer in enumerate(allocator.model.table.layers):
        place = allocator.model.table.slice_of(layer.name)
        alone = costs.base + costs.neuron[place.start] + costs.opening[number] + costs.depth[number]
        assert bool((found[place] > 0).any()) == (int(alone) <= allocator.limit)
    assert 0 < int((found > 0).sum()) < len(found)


def test_a_task_that_cuts_no_batches_is_measured_in_groups_of_layers_alone():
    network = toy()
    allocator = allocator_of(network, Budget("bytes", ratio=0.6))
    found = measured(network, allocator, "gradient_norm", task=Labelled(cut=False))
    whole = measured(network, allocator_of(network, EVERYTHING), "gradient_norm")
    torch.testing.assert_close(found[found > 0], whole[found > 0], rtol=1e-5, atol=0)


def test_measuring_changes_nothing():
    network = toy()
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    measured(network, allocator_of(network, Budget("bytes", ratio=0.5)), "squared_gradient")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())
