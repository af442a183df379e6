"""Batch norms over groups of images, against torch's batch norm called group by group."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import GhostBatches, Plan
from neq.budget import CostModel, StepSpec
from neq.networks.neurons import neuron_table
from neq.training.profiling import SavedBytes
from tests.toys import SHAPE, batch, toy

GROUP = 4
SELECTION = {"grouped": torch.tensor([0, 5]), "depthwise": torch.tensor([3]), "hidden": torch.tensor([1])}


class Unfused(nn.Module):
    """A norm ahead of its convolution, and one on vectors."""

    def __init__(self):
        super().__init__()
        self.norm1, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, bias=False)
        self.norm2, self.head = nn.BatchNorm1d(8, affine=False), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.norm2(self.conv(self.norm1(x)).relu().mean((2, 3))))


def unfused():
    torch.manual_seed(0)
    return Unfused().double()


def by_group(network):
    """The network with norms that torch computes for one group after another."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = type(module).forward
            module.forward = lambda x, module=module, own=own: torch.cat(
                [own(module, part) for part in x.split(GROUP)]
            )
    return network


@pytest.mark.parametrize(
    ("make", "selection", "layer_by_layer"),
    [
        (toy, SELECTION, False),
        (toy, SELECTION, True),
        (toy, {}, False),
        (unfused, {"conv": torch.tensor([0, 2])}, False),
        (unfused, {"conv": torch.arange(8)}, False),
    ],
)
@pytest.mark.parametrize("size", [8, 10, 3])
def test_gradients_and_statistics_are_those_of_each_group(make, selection, layer_by_layer, size):
    network = make()
    stock = by_group(network).train()
    if layer_by_layer:
        network.register_forward_hook(lambda *_: None)
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, selection, "train", batch=GhostBatches(GROUP))
    images, labels = batch(size=size)
    F.cross_entropy(plan(images), labels).backward()
    F.cross_entropy(stock(images), labels).backward()
    expected = dict(stock.named_parameters())
    for name, leaf in plan.named_parameters():
        part = plan.parts[name]
        assert torch.allclose(leaf.grad, part.take(expected[name].grad), rtol=1e-9, atol=1e-12), name
    for (name, mine), theirs in zip(network.named_buffers(), stock.buffers(), strict=True):
        if "num_batches" not in name:
            assert torch.allclose(mine, theirs, rtol=1e-12), name


@pytest.mark.parametrize("norm_mode", ["train", "frontier"])
def test_what_is_kept_is_predicted(norm_mode):
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    spec = StepSpec((10,), SHAPE, norm_mode, ghost_batch=GROUP)
    plan = spec.plan(network, table, SELECTION)
    kept = SavedBytes([*network.parameters(), *network.buffers(), *plan.parameters()])
    with kept.counting():
        plan(batch(size=10, dtype=torch.float32)[0])
    assert kept.total == CostModel(network, table, spec).step(SELECTION).saved_bytes


def test_a_group_as_large_as_the_batch_is_an_ordinary_norm():
    images, labels = batch(size=8)
    found = []
    for split in (None, GhostBatches(8)):
        network = toy()
        plan = Plan(network, neuron_table(network, SHAPE), SELECTION, "train", batch=split)
        F.cross_entropy(plan(images), labels).backward()
        found.append([leaf.grad for leaf in plan.parameters()] + list(network.buffers()))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=1e-9, atol=1e-14)
