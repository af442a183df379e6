import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from neq.config import networks
from neq.errors import UserError
from neq.networks import build_network, head_name, replace_head
from neq.neurons import neuron_table

RANDOM_START = [name for name, entry in networks().items() if not entry.pretrained]


@pytest.mark.parametrize("name", RANDOM_START)
def test_networks_have_the_conv_weights_of_their_tables(name):
    entry = networks()[name]
    network = build_network(name, 7)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert sum(conv.weight.numel() for conv in convs) == entry.conv_weights
    size = min(entry.input_size, 64)
    table = neuron_table(network, (3, size, size))
    assert table.total_parameters == entry.conv_weights
    assert len(table.layers) == len(convs)
    assert table.head == head_name(network)


@pytest.mark.parametrize(
    ("name", "convs"),
    [("mcunet-in0", 45), ("mcunet-in1", 42), ("mcunet-in2", 54), ("mcunet-in3", 54), ("mcunet-in4", 51)],
)
def test_mcunet_tables(name, convs):
    network = build_network(name, 10)
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(modules) == convs
    assert all(conv.bias is None for conv in modules)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == convs
    assert {norm.eps for norm in norms} == {1e-3}


@pytest.mark.parametrize("name", RANDOM_START)
def test_the_head_has_the_wanted_size(name):
    """Fault 3: the 1000-class head was never replaced."""
    network = build_network(name, 7)
    head = network.get_submodule(head_name(network))
    assert head.out_features == 7
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_a_replaced_head_keeps_its_inputs_and_leaves_the_rest():
    network = torchvision.models.resnet18()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    replace_head(network, 12)
    assert network.fc.weight.shape == (12, 512)
    now = network.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items() if not name.startswith("fc"))


def test_one_seed_gives_one_network_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first, again, other = (build_network("mcunet-in0", 5, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert not torch.equal(first["features.0.0.weight"], other["features.0.0.weight"])


def test_the_body_does_not_depend_on_the_number_of_classes():
    few, many = (build_network("mbv2", classes, 1).state_dict() for classes in (2, 100))
    assert torch.equal(few["features.0.0.weight"], many["features.0.0.weight"])


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"'mbv3' is unknown; did you mean 'mbv2'\?.*See neq networks"):
        build_network("mbv3", 10)


def test_pretrained_weights_without_network_are_one_clear_line(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(
        UserError, match=r"pre_trained_resnet18.*put that file at .*checkpoints.resnet18.*\.pth"
    ) as caught:
        build_network("pre_trained_resnet18", 10)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_taken_from_the_cache(monkeypatch):
    weights = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda *a, **k: weights)
    network = build_network("pre_trained_resnet18", 10).state_dict()
    assert torch.equal(network["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    assert network["fc.weight"].shape == (10, 512)
