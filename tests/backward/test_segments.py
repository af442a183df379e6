"""A plan in segments, against the same plan in one piece."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan
from neq.backward.fusion import traced
from neq.networks.neurons import neuron_table
from neq.utils.errors import UserError
from tests.backward.test_plan import some
from tests.toys import NETWORKS, SHAPE, batch, toy


def results(network, shape, norm_mode, cuts, training=2, half=False):
    """Losses, gradients and buffers of a few steps."""
    network = copy.deepcopy(network)
    table = neuron_table(network, shape)
    plan = Plan(network, table, some(table, 0.3), norm_mode, cuts=cuts)
    assert (plan.segments is not None) == bool(cuts)
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.01)
    found = []
    torch.manual_seed(0)  # of dropout
    for seed in range(training):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(4, *shape, generator=generator, dtype=next(network.parameters()).dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(plan(images).double(), torch.arange(4))
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in plan.parameters() if p.grad is not None)]
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
    return found, list(network.buffers())


def points_of(network, shape, exact=False):
    trace = traced(network, neuron_table(network, shape))
    assert trace is not None
    return tuple(name for name in trace.cut_points if not (exact and name in trace.inexact))


@pytest.mark.slow
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_gradients_and_statistics_are_bit_identical(name, norm_mode):
    torch.manual_seed(0)
    network, shape = NETWORKS[name](num_classes=5).float(), (3, 32, 32)
    points = points_of(network, shape, norm_mode != "frozen")
    assert len(points) >= 6
    for one, other in zip(
        results(network, shape, norm_mode, points),
        results(network, shape, norm_mode, ()),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
def test_behind_a_norm_and_its_activation_the_last_digits_differ(norm_mode, momentum):
    network = toy()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    points = points_of(network, SHAPE)
    assert points == ("grouped", "depthwise", "pointwise", "hidden", "head")
    found, expected = results(network, SHAPE, norm_mode, points), results(network, SHAPE, norm_mode, ())
    for one, other in zip(found[0], expected[0], strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-16)
    for one, other in zip(found[1], expected[1], strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=1e-12)


def test_under_autocast():
    torch.manual_seed(0)
    network = NETWORKS["resnet18"](num_classes=5)
    points = points_of(network, (3, 32, 32), exact=True)
    found, expected = (results(network, (3, 32, 32), "train", cuts, half=True) for cuts in (points[::2], ()))
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Residual(nn.Module):
    """A sum of two branches, an activation that works in place on it, and a map that is read again later."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.third, self.fourth = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 5)

    def forward(self, x):
        x = self.first(x)
        x = x + self.third(self.second(x))
        y = self.fourth(x)
        y += x
        return self.head(y.mean((2, 3)))


def test_a_cut_is_where_one_tensor_passes():
    network = Residual()
    assert points_of(network, SHAPE) == ("second", "fourth", "head")


class InPlace(Residual):
    """A map that is changed in place by what follows it."""

    def forward(self, x):
        x = self.first(x)
        x = self.second(x.mul_(2))
        return self.head(self.fourth(self.third(x)).mean((2, 3)))


def test_what_is_changed_in_place_is_no_place_to_cut():
    network = InPlace()
    assert "third" in points_of(network, SHAPE)
    images, labels = batch(dtype=torch.float32)
    found = []
    for cuts in ((), points_of(network, SHAPE)):
        plan = Plan(network, neuron_table(network, SHAPE), {"first": torch.tensor([0])}, cuts=cuts)
        F.cross_entropy(plan(images), labels).backward()
        found.append(next(plan.parameters()).grad)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [(["features.2"], "cut point 'features.2' is unknown"), (["depthwise", "stem"], "cut point 'stem' is")],
)
def test_an_impossible_cut_is_refused(cuts, message):
    network = toy()
    with pytest.raises(UserError) as raised:
        Plan(network, neuron_table(network, SHAPE), {}, cuts=cuts)
    assert message in str(raised.value)


def test_a_network_that_cannot_be_traced_is_not_cut():
    network = toy()
    network.register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="Toy cannot be traced"):
        Plan(network, neuron_table(network, SHAPE), {}, cuts=["depthwise"])


def test_a_copied_plan_is_cut_too():
    network = toy()
    plan = copy.deepcopy(Plan(network, neuron_table(network, SHAPE), {}, cuts=["depthwise"]))
    assert plan.segments is not None
