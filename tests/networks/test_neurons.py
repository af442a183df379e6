import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from neq.backward import Plan
from neq.networks import layer_kinds
from neq.networks.build import build_network
from neq.networks.neurons import neuron_table
from neq.utils.errors import UserError
from tests.toys import SHAPE, toy


def test_costs_are_exact_for_every_kind_of_layer():
    table = neuron_table(toy(), SHAPE)
    costs = {layer.name: (layer.neurons, layer.parameters, layer.macs) for layer in table.layers}
    assert costs == {
        "stem": (8, 3 * 9, 27 * 36),
        "grouped": (12, 2 * 9, 18 * 36),  # in / groups, not in
        "depthwise": (24, 9, 9 * 36),  # kh * kw, not in * kh * kw
        "pointwise": (24, 24, 24 * 36),
        "hidden": (16, 24, 24),
    }
    assert table.head == "head"
    assert table.total_parameters == sum(n * p for n, p, _ in costs.values())
    assert len(table) == 84 == len(table.parameters) == len(table.macs)


def test_order_of_calls_and_the_norm_behind_a_layer():
    table = neuron_table(toy(), SHAPE)
    assert [layer.norm for layer in table.layers] == ["norm1", "norm2", "norm3", None, None]
    orders = [layer.order for layer in table.layers]
    assert orders == sorted(orders)
    assert table.layers[0].order < table.norm_order["norm1"] < table.layers[1].order


def test_downsample_comes_in_the_order_of_calls_not_of_modules():
    table = neuron_table(build_network("resnet18", 10), (3, 64, 64))
    order = {layer.name: layer.order for layer in table.layers}
    assert order["layer2.0.conv2"] < order["layer2.0.downsample.0"] < order["layer2.1.conv1"]


@pytest.mark.parametrize(
    ("name", "convs", "neurons", "total"),
    [("mbv2", 52, 17056, 2189760), ("resnet18", 20, 4800, 11166912), ("resnet50", 53, 26560, 23454912)],
)
def test_published_totals(name, convs, neurons, total):
    table = neuron_table(build_network(name, 10), (3, 64, 64))
    assert (len(table.layers), len(table), table.total_parameters) == (convs, neurons, total)


def test_selection_and_mask_are_inverse():
    table = neuron_table(toy(), SHAPE)
    chosen = torch.rand(len(table), generator=torch.Generator().manual_seed(3)) < 0.3
    chosen[table.slice_of("pointwise")] = False
    selection = table.selection(chosen)
    assert "pointwise" not in selection
    assert torch.equal(table.mask(selection), chosen)


def test_the_network_is_left_as_it_was():
    network = toy().train()
    network.norm2.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    neuron_table(network, SHAPE)
    assert network.training
    assert not network.norm2.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_an_activation_in_place_between_conv_and_norm_hides_the_norm():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 2)
    )
    assert neuron_table(network, SHAPE).layers[0].norm is None


def test_what_cannot_be_selected_is_named():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 2)
            self.mix = nn.Linear(12, 12)
            self.head = nn.Linear(12, 2)

        def forward(self, x):
            x = x.flatten(1, 2)
            return self.head(self.mix(self.attention(x, x, x)[0]).mean(1))

    table = neuron_table(Attention(), SHAPE)
    assert [layer.name for layer in table.layers] == ["mix"]
    assert table.unselectable == ("attention", "attention.out_proj")
    assert table.layers[0].macs == 12 * 36


@pytest.mark.parametrize("head", ["nothing", "act", "norm1"])
def test_a_head_that_is_no_called_layer_is_refused(head):
    with pytest.raises(ValueError, match="Allowed: depthwise, grouped, head"):
        neuron_table(toy(), SHAPE, head=head)


def test_a_network_without_layers_is_refused():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())
    with pytest.raises(
        UserError, match="no layer to select: modules with parameters are 1 BatchNorm2d; allowed"
    ):
        neuron_table(network, SHAPE)


class Standardized(nn.Conv2d):
    """A convolution whose weight is not what it seems."""

    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


def test_a_network_of_which_only_the_head_is_selectable_is_refused(monkeypatch):
    """Convolutions with a forward of their own once gave an empty table, without an error."""
    core = {kind.name: kind for kind in (layer_kinds.CONV, layer_kinds.LINEAR)}
    monkeypatch.setattr(layer_kinds, "_kinds", core)  # a wing's kinds are named too, once it is imported
    network = nn.Sequential(
        Standardized(3, 4, 3), Standardized(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(UserError) as error:
        neuron_table(network, SHAPE)
    assert str(error.value) == (
        "the network has no layer to select besides its head '4': modules with parameters are "
        "2 Standardized; allowed kinds of layer are conv, linear, as torch computes them, called by the "
        "network's forward and with a weight that no other module shares"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda network: setattr(network, "pointwise", Standardized(24, 24, 1)),
        lambda network: setattr(network.pointwise, "forward", lambda x: x * 2),
        lambda network: nn.utils.parametrizations.spectral_norm(network.pointwise),
        lambda network: nn.utils.parametrizations.weight_norm(network.pointwise),
        lambda network: prune.random_unstructured(network.pointwise, "weight", 0.5),
    ],
    ids=["subclass", "patched", "spectral_norm", "weight_norm", "pruned"],
)
def test_layers_that_compute_otherwise_stay_frozen_and_right(change):
    torch.manual_seed(0)
    network = toy(dtype=torch.float32)
    change(network)
    table = neuron_table(network, SHAPE)
    assert "pointwise" not in [layer.name for layer in table.layers]
    images = torch.randn(4, 3, 12, 12)
    plan = Plan(network, table, {"stem": [1]}, "frozen")
    network.eval()
    expected = network(images)
    assert torch.allclose(plan(images), expected, rtol=1e-4, atol=1e-5)


def test_tied_weights_cannot_be_selected():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.b.weight = self.a.weight
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.c(self.b(self.a(x))).mean((2, 3)))

    table = neuron_table(Tied(), SHAPE)
    assert [layer.name for layer in table.layers] == ["c"]
    assert table.unselectable == ("a", "b")


def test_what_a_forward_records_is_not_left_on_the_network():
    class Recording(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
            self.features, self.steps, self.last = [], 0, None
            self.register_buffer("mean", torch.ones(4))

        def forward(self, x):
            x = self.conv(x)
            self.features.append(x)
            self.last, self.mean, self.steps = x, x.mean((0, 2, 3)), self.steps + 1
            return self.head(x.mean((2, 3)))

    network = Recording()
    neuron_table(network, SHAPE)
    assert (network.features, network.steps, network.last) == ([], 0, None)
    assert torch.equal(network.mean, torch.ones(4))


class OwnLinear(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias) * 2


class WithClassifier(nn.Module):
    """A network that names its classifier, and may call something after it."""

    def __init__(self, classifier, after=None):
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(1, 4, 1, 1))  # a matrix of the network itself, which ends last
        self.conv = nn.Conv2d(3, 4, 3)
        self.hidden = nn.Linear(4, 4)
        self.classifier = classifier
        self.after = after or nn.Identity()

    def forward(self, x):
        x = (self.conv(x) + self.pos).mean((2, 3))
        return self.after(self.classifier(self.hidden(x)))


class Naming(WithClassifier):
    def get_classifier(self):
        return self.classifier


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize(
    "make",
    [lambda: OwnLinear(4, 5), lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))],
    ids=["own forward", "weight_norm"],
)
def test_the_classifier_trains_whatever_its_class(make, norm_mode):
    torch.manual_seed(0)
    network = WithClassifier(make())
    table = neuron_table(network, SHAPE)
    assert table.head == "classifier"
    assert [layer.name for layer in table.layers] == ["conv", "hidden"]
    before = {name: value.detach().clone() for name, value in network.classifier.named_parameters()}
    plan = Plan(network, table, {"hidden": [1]}, norm_mode)
    assert plan.trained_values()["head"] == sum(value.numel() for value in before.values())
    images, labels = torch.randn(4, *SHAPE), torch.arange(4)
    stock = copy.deepcopy(network)
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1)
    nn.functional.cross_entropy(plan(images), labels).backward()
    nn.functional.cross_entropy(stock(images), labels).backward()
    for name, value in network.classifier.named_parameters():
        assert torch.allclose(value.grad, stock.classifier.get_parameter(name).grad, atol=1e-6), name
    optimizer.step()
    plan.write_back()
    for name, value in network.classifier.named_parameters():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    "make",
    [lambda: OwnLinear(4, 5), lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))],
    ids=["own forward", "weight_norm"],
)
def test_a_frozen_classifier_of_any_class_gets_no_gradient(make):
    torch.manual_seed(0)
    network = WithClassifier(make())
    table, images = neuron_table(network, SHAPE), torch.randn(4, *SHAPE)
    plan = Plan(network, table, {"hidden": [1]}, "train", train_head=False)
    assert plan.trained_values()["head"] == 0
    out = plan(images)
    torch.testing.assert_close(out, network(images))
    out.square().sum().backward()
    assert all(value.grad is None for value in network.classifier.parameters())
    assert all(value.grad is not None for value in plan.parameters())


def test_a_network_says_where_its_classifier_is():
    network = Naming(nn.Sequential(OwnLinear(4, 4), nn.ReLU(), nn.Linear(4, 5)), after=nn.Linear(5, 5))
    with pytest.raises(UserError, match=r"classifier 'classifier.0' would never train: a OwnLinear"):
        neuron_table(network, SHAPE)
    network.classifier[0] = nn.Linear(4, 4)
    table = neuron_table(network, SHAPE)
    assert table.head == "classifier.2"
    assert [layer.name for layer in table.layers] == ["conv", "hidden", "classifier.0", "after"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_050", "fasternet_t0"]
)
def test_timms_classifiers_are_the_heads(name):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=5)
    table = neuron_table(network, (3, 32, 32))
    assert network.get_submodule(table.head) is network.get_classifier()
    assert table.head not in table.unselectable
