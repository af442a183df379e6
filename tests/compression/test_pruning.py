import pytest
import torch
from torch import nn

from neq.compression import Compressed, prune
from neq.networks.build import build_network
from neq.networks.recipe import Recipe, named_recipe
from neq.utils.errors import UserError

pytest.importorskip("torch_pruning")


def start_of(net_name, classes=10):
    network = build_network(net_name, classes, weights="none").eval()
    return Compressed(network, named_recipe(net_name, network, classes))


def toy():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    return Compressed(network, Recipe("toy", 2, "4"))


def kept(before, after):
    """The neurons of the toy's conv that are left, by their weights."""
    old, new = before.network[0].weight.detach(), after.network[0].weight.detach()
    return [next(i for i in range(4) if torch.equal(old[i], row)) for row in new]


def test_half_of_mobilenet_v3_small_is_as_large_as_published():
    start = start_of("mobilenet_v3_small", 31)
    assert sum(p.numel() for p in start.network.parameters()) == 1_549_631
    made = prune(start, torch.zeros(1, 3, 64, 64), 0.5)
    assert sum(p.numel() for p in made.network.parameters()) == 408_351
    assert sum(p.numel() for p in start.network.parameters()) == 1_549_631


@pytest.mark.parametrize("net_name", ["mbv2", "resnet18"])
def test_a_pruned_network_is_built_again_by_its_recipe(net_name):
    made = prune(start_of(net_name), torch.zeros(1, 3, 64, 64), 0.5)
    again = made.recipe.build().eval()
    again.load_state_dict(made.network.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), made.network(images))
    assert made.network(images).shape == (2, 10)
    assert all(each.shape[0] % 8 == 0 for each in made.network.parameters() if each.dim() == 4)


def test_the_smallest_neurons_go(monkeypatch):
    start = toy()
    with torch.no_grad():
        start.network[0].weight.copy_(torch.tensor([3.0, 1, 4, 2]).view(4, 1, 1, 1).expand(4, 3, 1, 1))
        start.network[4].weight.fill_(1)
    monkeypatch.setattr("neq.compression.changed.apply_transform", applied(start))
    made = prune(start, torch.zeros(1, 3, 1, 1), 0.5, round_to=1)
    assert kept(start, made) == [0, 2]


def test_taylor_keeps_the_neurons_that_the_loss_depends_on(monkeypatch):
    start = toy()
    with torch.no_grad():
        start.network[0].weight.copy_(torch.tensor([3.0, 1, 4, 2]).view(4, 1, 1, 1).expand(4, 3, 1, 1))
        start.network[4].weight.copy_(torch.tensor([[0.0, 9, 0, 9], [0, -9, 0, -9]]))
    monkeypatch.setattr("neq.compression.changed.apply_transform", applied(start))
    batches = [(torch.rand(8, 3, 1, 1), torch.arange(8) % 2)]
    made = prune(start, torch.zeros(1, 3, 1, 1), 0.5, importance="taylor", round_to=1, batches=batches)
    assert kept(start, made) == [1, 3]
    assert all(each.grad is None for each in start.network.parameters())


@pytest.mark.parametrize(("importance", "left"), [("velocity-least", [1, 3]), ("velocity", [0, 2])])
def test_by_movement_the_neurons_go_that_moved_most_or_least(monkeypatch, importance, left):
    start = toy()
    monkeypatch.setattr("neq.compression.changed.apply_transform", applied(start))
    moved = {"0": torch.tensor([0.1, 0.7, 0.2, 1.9], dtype=torch.float64)}
    image = torch.zeros(1, 3, 1, 1)
    assert kept(start, prune(start, image, 0.5, importance=importance, round_to=1, moved=moved)) == left
    with pytest.raises(UserError, match=f"importance {importance} needs how far"):
        prune(start, image, 0.5, importance=importance)


def test_movement_of_layers_that_lose_neurons_together_is_averaged():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.depthwise = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=4)
            self.b, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            x = self.a(x)
            return self.fc((self.b(self.depthwise(x)) + x).flatten(1))

    from neq.networks.recipe import Recipe

    network = Residual().eval()
    start = Compressed(network, Recipe("residual", 2, "fc"))
    moved = {
        "a": torch.tensor([1.0, 0, 0, 0]),
        "depthwise": torch.tensor([0, 0.6, 0, 0]),
        "b": torch.tensor([0, 0.6, 0.3, 0]),
    }
    moved = {name: each.double() for name, each in moved.items()}
    found = prune_state(start, moved)
    assert torch.equal(found["a.weight"], network.a.weight[:2])
    assert torch.equal(found["b.weight"], network.b.weight[:2, :2])


def prune_state(start, moved):
    """The tensors of a network that is pruned by half, before a recipe builds it again."""
    found = {}

    def by(self, name, values, **arguments):
        found.update(values)
        return self

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compressed, "by", by)
        prune(start, torch.zeros(1, 3, 1, 1), 0.5, importance="velocity-least", round_to=1, moved=moved)
    return found


def test_every_importance_that_is_offered_is_there():
    from neq.wings.compression import IMPORTANCES

    network = start_of("mcunet-in0")
    image = torch.zeros(1, 3, 32, 32)
    layers = {name: each for name, each in network.network.named_modules() if isinstance(each, nn.Conv2d)}
    inputs = {
        "batches": [(torch.randn(2, 3, 32, 32), torch.arange(2))],
        "moved": {name: torch.rand(len(each.weight)).double() for name, each in layers.items()},
    }
    sizes = {
        sum(p.numel() for p in prune(network, image, 0.5, importance=name, **inputs).network.parameters())
        for name in IMPORTANCES
    }
    assert len(sizes) == 1  # the same widths, by whatever is ranked
    with pytest.raises(UserError, match="'none' is unknown"):
        prune(network, image, 0.5, importance="none")


def applied(start):
    """`apply_transform` for a network that no name stands for."""
    from neq.networks.recipe import apply_transform

    def transform(network, recipe, name, **arguments):
        assert recipe == start.recipe
        return apply_transform(network, recipe, name, **arguments)

    return transform


def test_a_network_that_cannot_be_pruned_is_refused():
    with pytest.raises(UserError, match="removes nothing at widths of multiples of 64"):
        prune(toy(), torch.zeros(1, 3, 1, 1), 0.5, round_to=64)

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 1), nn.Linear(8, 2)
            self.scale = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x):
            return self.fc((self.conv(x) * self.scale).flatten(1))

    with pytest.raises(UserError, match=r"has tensors that widths cannot change|cannot be pruned"):
        prune(Compressed(Fixed().eval(), Recipe("fixed", 2, "fc")), torch.zeros(1, 3, 1, 1), 0.5, round_to=1)


def test_without_torch_pruning_it_is_said(monkeypatch):
    monkeypatch.setattr("neq.compression.pruning.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pruning needs torch-pruning"):
        prune(toy(), torch.zeros(1, 3, 1, 1), 0.5)


def test_random_pruning_is_the_same_each_time_and_leaves_torchs_random_state():
    state = torch.get_rng_state()
    start = start_of("mcunet-in0")
    made = [prune(start, torch.zeros(1, 3, 32, 32), 0.5, importance="random") for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(each.network.parameters() for each in made), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_movement_is_averaged_over_the_layers_that_have_the_channel():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
            self.depthwise, self.fc = nn.Conv2d(4, 4, 1, groups=4), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.depthwise(torch.cat([self.a(x), self.b(x)], 1)).flatten(1))

    from types import SimpleNamespace

    from torch_pruning.pruner import function

    from neq.compression.pruning import _by_movement

    network = Joined()
    moved = {"a": torch.tensor([1.0, 2.0]).double(), "depthwise": torch.tensor([3.0, 2, 4, 5]).double()}

    def member(layer, of, idxs, places):
        return SimpleNamespace(dep=SimpleNamespace(layer=layer, pruning_fn=of), idxs=idxs, root_idxs=places)

    whole = member(network.depthwise, function.prune_depthwise_conv_out_channels, [0, 1, 2, 3], [0, 1, 2, 3])
    part = member(network.a, function.prune_conv_out_channels, [0, 1], [0, 1])
    assert _by_movement(network, moved, 1.0)([whole, part]).tolist() == [2.0, 2.0, 4.0, 5.0]
