import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import neq
from neq.backward import Plan
from neq.budget import CostModel, StepSpec
from neq.compression import Compressed, binarize, sparsify
from neq.compression.binary import BinaryConv2d, binarized, binary_weight
from neq.networks.build import build_network
from neq.networks.recipe import Recipe, named_recipe
from neq.training.profiling import SavedBytes
from neq.utils.errors import UserError

SHAPE = (3, 8, 8)


def toy():
    torch.manual_seed(0)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1, bias=False), nn.Flatten(), nn.Linear(16, 3)),
    )
    with torch.no_grad():
        layers[3].weight.mul_(20)  # some beyond 1
    return binarized(layers, ["3", "7"])


class Reference(nn.Conv2d):
    """A convolution by binary weights, whose gradient torch derives."""

    def forward(self, x):
        w = self.weight
        scale = w.detach().abs().mean((1, 2, 3), keepdim=True)
        binary = scale * torch.where(w.detach() >= 0, 1.0, -1.0)
        share = 1 / w[0].numel() + scale * (w.detach().abs() <= 1)
        return self._conv_forward(x, binary + share * (w - w.detach()), self.bias)


def reference(network):
    made = copy.deepcopy(network)
    for each in made.modules():
        if type(each) is BinaryConv2d:
            each.__class__ = Reference
    return made


def test_the_scale_and_the_error_of_a_known_weight():
    weight = torch.tensor([[1.0, -2, 3, -2], [0, 0, 0, 4]]).view(2, 1, 2, 2)
    binary = binary_weight(weight)
    assert binary[0].flatten().tolist() == [2, -2, 2, -2]
    assert binary[1].flatten().tolist() == [1, 1, 1, 1]
    assert float((weight - binary)[0].square().sum()) == 2 == float(weight[0].square().sum()) - 4 * 2**2


def test_the_network_computes_and_learns_as_by_torchs_own_gradients():
    network = toy().double().eval()
    stock = reference(network)
    x = torch.randn(5, *SHAPE, dtype=torch.float64, requires_grad=True)
    grads = []
    for each in (network, stock):
        out = each(x)
        grads.append(torch.autograd.grad(out.square().sum(), [x, *each.parameters()]))
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)
    assert (network[3].weight.abs() > 1).any()


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
@pytest.mark.parametrize("norm_mode", ["frozen", "train"])
@pytest.mark.parametrize("chosen", [{"3": [1, 4], "7": [0]}, {"3": list(range(6)), "7": list(range(4))}])
def test_gradients_of_a_plan_are_those_of_the_whole_network(unit, norm_mode, chosen):
    network = toy().double()
    table = neq.neuron_table(network, SHAPE, unit=unit)
    assert {layer.name: layer.kind.name for layer in table.layers}["3"] == "binary conv"
    if unit == "input_channel" and len(chosen["3"]) == 6:
        chosen = {"3": list(range(8)), "7": list(range(6))}
    plan = Plan(network, table, {name: torch.tensor(each) for name, each in chosen.items()}, norm_mode)
    x, labels = torch.randn(6, *SHAPE, dtype=torch.float64), torch.arange(6) % 3
    F.cross_entropy(plan(x), labels).backward()
    stock = reference(network).train(norm_mode == "train")
    F.cross_entropy(stock(x), labels).backward()
    leaves = dict(plan.named_parameters())
    assert {"3.weight", "7.weight", "9.weight"} <= leaves.keys()
    for name, leaf in leaves.items():
        if name in plan.parts and name != "1.bias":
            expected = plan.parts[name].take(stock.get_parameter(name).grad)
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-9, atol=1e-12)


def test_what_a_step_keeps_is_counted():
    network = toy()
    table = neq.neuron_table(network, SHAPE)
    selection = {"3": torch.tensor([1, 4]), "7": torch.tensor([0])}
    cost = CostModel(network, table, StepSpec((10,), SHAPE, "frozen")).step(selection)
    plan = Plan(network, table, selection, "frozen")
    saved = SavedBytes([*network.parameters(), *network.buffers(), *plan.parameters()])
    with saved.counting():
        plan(torch.randn(10, *SHAPE).contiguous(memory_format=torch.channels_last))
    assert cost.saved_bytes == saved.total
    assert cost.parameters == 2 * 72 + 6


def test_training_moves_the_chosen_channels_and_lowers_the_loss():
    network = toy()
    table = neq.neuron_table(network, SHAPE)
    before = network[3].weight.detach().clone()
    plan = Plan(network, table, {"3": torch.tensor([1, 4]), "7": torch.arange(4)}, "frozen")
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.02, momentum=0.9)
    labels = torch.arange(12) % 3
    x, losses = torch.randn(12, *SHAPE) + labels.view(-1, 1, 1, 1), []
    for _ in range(20):
        loss = F.cross_entropy(plan(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plan.write_back()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert (network[3].weight != before).flatten(1).any(1).nonzero().flatten().tolist() == [1, 4]


@pytest.mark.parametrize("net_name", ["mcunet-in0", "resnet18"])
def test_a_binary_network_is_built_again_by_its_recipe(net_name):
    network = build_network(net_name, 4, weights="none").eval()
    image = torch.randn(1, 3, 64, 64)
    made = binarize(Compressed(network, named_recipe(net_name, network, 4)), image)
    convs = {name: each for name, each in made.network.named_modules() if isinstance(each, nn.Conv2d)}
    dense = [name for name, each in convs.items() if each.groups == 1]
    stem, *others = dense
    assert type(convs[stem]) is nn.Conv2d
    assert all(type(convs[name]) is BinaryConv2d for name in others)
    assert all(type(each) is nn.Conv2d for each in convs.values() if each.groups > 1)
    assert type(made.head) is nn.Linear
    again = made.recipe.build().eval()
    again.load_state_dict(made.network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(image), made.network(image))
        assert not torch.equal(network(image), made.network(image))


def test_a_binary_network_can_be_pruned():
    pytest.importorskip("torch_pruning")
    from neq.compression import prune

    network = build_network("resnet18", 4, weights="none").eval()
    image = torch.zeros(1, 3, 32, 32)
    made = prune(binarize(Compressed(network, named_recipe("resnet18", network, 4)), image), image, 0.5)
    again = made.recipe.build().eval()
    again.load_state_dict(made.network.state_dict())
    assert type(again.layer1[0].conv1) is BinaryConv2d
    assert again.layer1[0].conv1.out_channels == 32
    assert again(image).shape == (1, 4)


def test_what_cannot_be_binary_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval()
    start = Compressed(network, Recipe("toy", 2, "3"))
    image = torch.zeros(1, *SHAPE)
    with pytest.raises(UserError, match="binary weights are not zero, and this network is sparse"):
        binarize(sparsify(start, 0.5), image)
    has_binary = Compressed(binarized(copy.deepcopy(network), ["1"]), Recipe("toy", 2, "3"))
    with pytest.raises(UserError, match="binary weights are not zero, and this network has them"):
        sparsify(has_binary, 0.5)
    with pytest.raises(UserError, match="has no convolution to binarize"):
        binarize(
            Compressed(nn.Sequential(*network[:1], nn.Flatten(), nn.Linear(144, 2)), Recipe("toy", 2, "2")),
            image,
        )
    with pytest.raises(ValueError, match="3, a Linear, cannot have binary weights"):
        binarized(network, ["3"])
