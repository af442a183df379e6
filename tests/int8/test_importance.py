"""What policies rank int8 layers by: gradients and weights in real units, not in those of codes."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.int8 import Int8Network, float_weights, read_tiny_training
from neq.networks import neuron_table
from neq.networks.build import build_network
from neq.networks.mcunet import MCUNet
from neq.selection import CRITERIA, SelectionState, batch_gradients, taylor
from neq.tasks import StepOutput
from neq.training.importance import measure_importance
from tests.int8.reference import latent, reference_network
from tests.int8.toys import description, images

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))


class OneBatch:
    """A task of one batch."""

    steps_per_epoch, share, forwards, has_micro_batches = 1, 1.0, 1, True

    def __init__(self, images_, labels):
        self.given = images_, labels

    def batches(self, epoch, start):
        return iter([self.given])

    def micro_batches(self, whole, count):
        for part in zip(*(each.split(count) for each in whole), strict=True):
            yield part, len(part[0]) / len(whole[0])

    def step(self, forward, given):
        return StepOutput(F.cross_entropy(forward(given[0]), given[1]), {})


def importance(network, task, criterion="gradient_norm", unit="neuron"):
    """The neurons of a network, and what they are ranked by."""
    images_, _ = task.given
    table = neuron_table(network, tuple(images_.shape[1:]), unit=unit)
    spec = StepSpec((len(images_),), tuple(images_.shape[1:]), "frozen")
    allocator = BudgetAllocator(CostModel(network, table, spec), Budget(ratio=1.0))
    found = measure_importance(
        *(network, allocator, task, CRITERIA[criterion], (0, 1), 0),
        lambda plan, given: F.cross_entropy(plan(given[0]), given[1]),
    )
    return table, found.neurons


def by_layer(network, task):
    """The gradient norm of each layer."""
    table, scores = importance(network, task)
    squares = (scores[table.slice_of(layer.name)].square().sum() for layer in table.layers)
    return torch.stack([*squares]).sqrt()


def real(network, task):
    """Real weights w and their gradients, dL/dq / s, of the straight-through reference in float64."""
    described = network.describe()
    tensors = {name: p.detach().double().requires_grad_() for name, p in network.named_parameters()}
    F.cross_entropy(reference_network(described, task.given[0], tensors), task.given[1]).backward()
    scales = {conv.name: conv.scales.double().view(-1, 1, 1, 1) for conv in described.convs}
    leaves = {name: tensors[f"{name}.weight"] for name in scales}
    return {name: (leaves[name].detach() * of, leaves[name].grad / of) for name, of in scales.items()}


@pytest.fixture
def toy(tmp_path):
    made = Int8Network(description(tmp_path))
    made.load_state_dict(latent(description(tmp_path)), strict=False)
    return made, OneBatch(images(6), torch.arange(6) % 5)


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
@pytest.mark.parametrize("criterion", ["gradient_norm", "loss_decrease", "relative_gradient"])
def test_importance_is_that_of_real_weights(toy, criterion, unit):
    network, task = toy
    table, found = importance(network, task, criterion, unit)
    right = real(network, task)
    for layer in table.layers:
        w, g = (each.transpose(0, layer.axis).flatten(1) for each in right[layer.name])
        expected = CRITERIA[criterion].score(w, g)
        torch.testing.assert_close(found[table.slice_of(layer.name)], expected, rtol=1e-4, atol=1e-7)


def test_taylor_multiplies_real_weights_with_real_gradients(toy):
    network, task = toy
    network.load_state_dict(latent(network.describe(), 1), strict=False)
    table = neuron_table(network, (3, 16, 16))
    found = batch_gradients(network, table, lambda forward: task.step(forward, task.given).loss)
    scores = taylor.score(SelectionState(table, network, torch.Generator(), gradients=found))
    for name, (_, gradient) in real(network, task).items():
        torch.testing.assert_close(found[f"{name}.weight"].double(), gradient, rtol=1e-3, atol=1e-5)
        conv = network.get_submodule(name)
        weight = conv.codes()[0] * conv.scales.view(-1, 1, 1, 1)
        expected = (weight * gradient).abs().flatten(1).sum(1)
        torch.testing.assert_close(scores[table.slice_of(name)], expected, rtol=1e-3, atol=1e-6)


def test_importance_is_near_that_of_the_float_network(tmp_path):
    described = description(tmp_path)
    floating = MCUNet(8, ((1, 8, 1, 3), (2, 8, 1, 5)), 5, folded=True)
    floating.blocks[0].skip = False
    floating.load_state_dict(float_weights(described))
    task = OneBatch(images(16), torch.arange(16) % 5)
    ratios = by_layer(Int8Network(described), task) / by_layer(floating, task)
    # In units of codes they would be some hundred times smaller, and by other factors in each layer.
    assert 0.4 < float(ratios.min()) < float(ratios.max()) < 1.5


@pytest.mark.slow
@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
def test_the_layers_of_a_published_network_are_in_the_order_of_the_float_ones():
    described = read_tiny_training(ASSETS / "weights" / "tinytraining_mcunet-5fps.pkl")
    floating = build_network("mcunet-in1_folded", 1000)
    floating.load_state_dict(float_weights(described))
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(16, 3, 8, 8, generator=generator), 64, mode="bicubic")
    task = OneBatch((smooth * 2 - 1).clamp(-1, 1), torch.arange(16) * 60)
    ours, theirs = (by_layer(network, task) for network in (Int8Network(described), floating))
    assert stats.spearmanr(ours, theirs).statistic > 0.9
    assert float((ours / theirs).log().abs().max()) < 1.5
