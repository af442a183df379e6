import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, list_models

from neq.backward import Plan
from neq.networks.heads import HeadInputs, head_name, replace_head
from neq.networks.neurons import neuron_table
from neq.utils.errors import UserError
from tests.toys import batch, toy

# Built with other operations than the rest: on the meta device these cannot be.
ON_META = [name for name in list_models(module=torchvision.models) if not name.startswith("regnet")]


@pytest.mark.parametrize("name", ON_META)
def test_the_head_of_every_torchvision_network_gives_its_classes(name):
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        network = get_model(name, num_classes=1009, **options)
    wide = [
        key
        for key, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.shape[0] == 1009
    ]
    assert [head_name(network)] == wide


def test_a_replaced_head_keeps_its_inputs_and_leaves_the_rest():
    network = torchvision.models.resnet18()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    replace_head(network, 12)
    assert network.fc.weight.shape == (12, 512)
    now = network.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items() if not name.startswith("fc"))


def test_a_conv_head_is_replaced_by_one():
    network = torchvision.models.squeezenet1_1().eval()
    replace_head(network, 12)
    assert head_name(network) == "classifier.1"
    assert network.classifier[1].weight.shape == (12, 512, 1, 1)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 12)


def test_a_head_without_bias_stays_one_and_keeps_its_dtype():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)).double()
    replace_head(network, 7)
    assert network[1].bias is None
    assert network[1].weight.dtype == torch.float64


def test_a_network_that_names_its_classifier_is_believed():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
            self.late = nn.Linear(4, 4)

        def get_classifier(self) -> nn.Module:
            return self.head

    assert head_name(Network()) == "head.1"


def test_a_network_without_a_head_is_refused():
    with pytest.raises(UserError, match="Sequential has no classifier head"):
        head_name(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_the_inputs_of_the_head_are_kept_in_network_and_plan(mode):
    network = toy(dtype=torch.float64)
    table = neuron_table(network, (3, 12, 12))
    plan = Plan(network, table, {}, mode)
    images, _ = batch()
    network.train(mode == "train")
    found = []
    for called in (plan, network):
        with HeadInputs(network.head) as kept:
            outputs = called(images)
        assert kept.features().shape == (6, 16)
        found.append(kept.features())
        assert torch.allclose(network.head(kept.features()), outputs)
    assert torch.allclose(found[0], found[1])
    assert not network.head._forward_pre_hooks


def test_a_head_that_convolves_has_flat_features():
    head = nn.Conv2d(4, 2, 1)
    with HeadInputs(head) as kept:
        head(torch.ones(3, 4, 1, 1))
    assert kept.features().shape == (3, 4)
