import pytest
import torch
from torch import nn

from neq.config import networks
from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.networks.neurons import neuron_table
from neq.utils.errors import UserError

RANDOM_START = [name for name, entry in networks().items() if not entry.pretrained]


@pytest.mark.parametrize("name", RANDOM_START)
def test_networks_have_the_totals_that_the_catalog_states(name):
    entry = networks()[name]
    network = build_network(name, 7)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == entry.convs
    assert sum(conv.weight.numel() for conv in convs) == entry.conv_weights
    size = min(entry.input_size, 64)
    table = neuron_table(network, (3, size, size))
    assert table.total_parameters == entry.total_weights
    assert table.head == head_name(network)
    assert not table.unselectable
    linears = [layer for layer in table.layers if layer.kind.name == "linear"]
    assert sum(layer.neurons * layer.parameters for layer in linears) == entry.linear_weights


@pytest.mark.parametrize(
    ("name", "convs", "weights", "neurons"),
    [
        ("mbv2", 52, 2_189_760, 17_056),
        ("resnet18", 20, 11_166_912, 4_800),
        ("resnet50", 53, 23_454_912, 26_560),
    ],
)
def test_published_totals(name, convs, weights, neurons):
    table = neuron_table(build_network(name, 7), (3, 64, 64))
    assert (len(table.layers), table.total_parameters, len(table)) == (convs, weights, neurons)


@pytest.mark.parametrize("name", RANDOM_START)
def test_the_head_has_the_wanted_size(name):
    """Fault 3: the 1000-class head was never replaced."""
    network = build_network(name, 7)
    head = network.get_submodule(head_name(network))
    assert head.out_features == 7
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_one_seed_gives_one_network_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first, again, other = (build_network("mcunet-in0", 5, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert not torch.equal(first["first_conv.0.weight"], other["first_conv.0.weight"])


@pytest.mark.parametrize("name", ["mbv2", "timm:mobilevit_xxs"])
def test_the_body_does_not_depend_on_the_number_of_classes(name):
    few, many = (build_network(name, classes, 1) for classes in (2, 100))
    head = head_name(few)
    others = many.state_dict()
    for key, tensor in few.state_dict().items():
        assert key.startswith(head) or torch.equal(tensor, others[key])


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"'mbv3' is unknown; did you mean 'mbv2'\?.*See neq networks"):
        build_network("mbv3", 10)
