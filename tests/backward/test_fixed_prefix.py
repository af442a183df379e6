"""A network in two parts, the first of which stays the same, against the network in one piece."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan, plain_prefix
from neq.networks.neurons import neuron_table
from tests.backward.test_plan import some
from tests.toys import NETWORKS, SHAPE, batch, toy


def plan_of(network, *layers, norm_mode="frozen", shape=SHAPE, **settings):
    table = neuron_table(network, shape)
    return Plan(network, table, {name: [0, 1] for name in layers}, norm_mode, **settings)


def late(network, shape, share=0.3):
    """A plan of some neurons in the last third of the layers."""
    table = neuron_table(network, shape)
    chosen = some(table, share)
    names = {
        layer.name for layer in sorted(table.layers, key=lambda layer: layer.order)[-len(table.layers) // 3 :]
    }
    return Plan(network, table, {name: each for name, each in chosen.items() if name in names}, "frozen")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_losses_and_gradients_are_bit_identical_in_two_parts(name):
    torch.manual_seed(0)
    network, shape = NETWORKS[name](num_classes=5).float(), (3, 32, 32)
    found = []
    for in_parts in (False, True):
        own = copy.deepcopy(network)
        plan = late(own, shape)
        prefix = plan.fixed_prefix()
        assert prefix is not None
        torch.manual_seed(1)  # of dropout
        images = torch.randn(4, *shape)
        digest, maps = prefix.digest(), prefix.before(images).clone()
        assert not maps.requires_grad
        optimizer = torch.optim.SGD(plan.parameters(), lr=0.01)
        for _ in range(2):
            # Maps are kept: they are those of the first step.
            loss = F.cross_entropy(prefix.after(maps) if in_parts else plan(images), torch.arange(4))
            loss.backward()
            found.append(
                [loss.detach(), *(leaf.grad.clone() for leaf in plan.parameters() if leaf.grad is not None)]
            )
            optimizer.step()
            optimizer.zero_grad()
            plan.write_back()
        assert prefix.digest() == digest
        found.append(list(own.state_dict().values()))
    half = len(found) // 2
    for one, other in zip(found[:half], found[half:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_plain_network_is_bit_identical_in_two_parts(name):
    torch.manual_seed(0)
    network, shape = NETWORKS[name](num_classes=5).float().eval(), (3, 32, 32)
    prefix = plain_prefix(network, late(network, shape).parts)
    assert prefix is not None
    images = torch.randn(4, *shape)
    with torch.no_grad():
        assert torch.equal(prefix.after(prefix.before(images).clone()), network(images))


def test_the_prefix_ends_below_the_earliest_chosen_layer():
    images, _ = batch()
    network = toy()
    shapes = {}
    for layer in ("pointwise", "depthwise", "grouped"):
        prefix = plan_of(network, layer, "hidden").fixed_prefix()
        shapes[layer] = tuple(prefix.before(images).shape[1:])
    # The residual sum reads what pointwise reads.
    assert shapes == {"pointwise": (24, 6, 6), "depthwise": (12, 6, 6), "grouped": (8, 6, 6)}
    assert plan_of(network, "stem").fixed_prefix() is None
    only_head = plan_of(network).fixed_prefix()
    assert only_head.before(images).shape == (6, 16)


@pytest.mark.parametrize("norm_mode", ["train", "frontier"])
def test_batch_statistics_leave_nothing_fixed(norm_mode):
    assert plan_of(toy(), "hidden", norm_mode=norm_mode).fixed_prefix() is None


def test_a_plan_in_segments_and_a_network_without_a_trace_have_none():
    network = toy()
    assert plan_of(network, "hidden", cuts=("hidden",)).fixed_prefix() is None
    network.hidden.register_forward_hook(lambda *_: None)
    network.register_forward_hook(lambda *_: None)
    assert plan_of(network, "hidden").fixed_prefix() is None
    assert plain_prefix(network, ()) is None


class Branchy(nn.Module):
    """Three convs with something between the first two."""

    def __init__(self, between):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.between = between
        self.third, self.head = nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        x = self.second(self.between(self.first(x)))
        return self.head(self.third(x).mean((2, 3)))


class Noise(nn.Module):
    """Draws in a forward that is traced."""

    def forward(self, x):
        return x + torch.rand_like(x)


class Drop(nn.Module):
    """Functional dropout."""

    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


@pytest.mark.parametrize(
    ("between", "in_training", "in_evaluation"),
    [
        (nn.Dropout(0.5), 4, 2),
        (nn.Dropout(0.0), 2, 2),
        (Drop(), 4, 2),
        (Noise(), 4, 4),
        (nn.BatchNorm2d(4, track_running_stats=False), 4, 4),
        (nn.InstanceNorm2d(4), 2, 2),
        (nn.LayerNorm([4, 6, 6]), 2, 2),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), 4, 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_draws_or_looks_at_the_batch_ends_it(between, in_training, in_evaluation):
    network = Branchy(between)
    images = torch.randn(2, 3, 8, 8)
    plan = plan_of(network, "third", shape=(3, 8, 8))
    for found, side in (
        (plan.fixed_prefix(), in_training),
        (plain_prefix(network, plan.parts), in_evaluation),
    ):
        # 8 - 2 = 6 behind the first conv, 4 behind the second.
        assert found.before(images).shape[-1] == {4: 6, 2: 4}[side]


def test_an_earlier_point_is_found_again():
    network = toy()
    early = plan_of(network, "depthwise").fixed_prefix()
    later = plan_of(network, "hidden")
    assert later.fixed_prefix().point != early.point
    again = later.fixed_prefix(early.point)
    assert (again.point, again.digest()) == (early.point, early.digest())
    assert plan_of(network, "grouped").fixed_prefix(early.point) is None


def test_the_digest_is_of_all_that_a_map_depends_on():
    network = toy()

    def digest(other=network):
        return plan_of(other, "depthwise").fixed_prefix().digest()

    first = digest()
    assert digest(copy.deepcopy(network)) == first
    with torch.no_grad():
        network.depthwise.weight[0] += 1  # behind the prefix
        network.norm3.running_mean += 1
    network.norm1.num_batches_tracked += 1
    assert digest() == first
    changes = [
        lambda: network.stem.weight.data[0, 0, 0, 0].mul_(1.001),
        lambda: network.norm1.running_var[0].mul_(1.001),
        lambda: network.norm2.bias.data[0].add_(0.001),
        lambda: setattr(network.norm1, "eps", 1e-4),
        lambda: setattr(network.stem, "stride", (1, 1)),
        lambda: setattr(network, "act", nn.ReLU6()),
    ]
    seen = {first}
    for change in changes:
        change()
        seen.add(digest())
    assert len(seen) == 1 + len(changes)
    assert plain_prefix(network.eval(), ["depthwise.weight"]).digest() not in seen


class Ending(nn.Module):
    """A convolution, a function of the test's, and a head that alone trains."""

    def __init__(self, between):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
        self.between = between

    def forward(self, x):
        return self.head(self.between(self.conv(x)))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: F.relu(x, inplace=True).mean((2, 3)),
        lambda x: x.mean((2, 3)).view(-1, 6).mul_(2),
        lambda x: x.mean((2, 3)).unsqueeze(1).squeeze(1).relu_(),
    ],
)
def test_no_map_is_kept_where_what_follows_changes_it(between):
    images = torch.randn(2, 3, 8, 8)
    prefix = plan_of(Ending(between), shape=(3, 8, 8)).fixed_prefix()
    assert prefix is not None
    maps = prefix.before(images)
    kept = maps.clone()
    expected = prefix.after(maps)
    assert torch.equal(maps, kept)
    assert torch.equal(prefix.after(maps), expected)


@pytest.mark.parametrize(
    "draw", [lambda x: torch.empty_like(x).normal_(0, 1), lambda x: torch.randint_like(x, 0, 2)]
)
def test_draws_with_a_bound_of_0_are_draws(draw):
    network = Ending(lambda x: (x + draw(x)).mean((2, 3)))
    prefix = plan_of(network, shape=(3, 8, 8)).fixed_prefix()
    images = torch.randn(2, 3, 8, 8)
    assert prefix is None or torch.equal(prefix.before(images), prefix.before(images))
