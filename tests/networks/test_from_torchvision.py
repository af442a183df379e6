import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from neq.networks.build import build_network
from neq.utils.errors import UserError


def test_pretrained_weights_without_network_are_one_clear_line(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", offline)
    with pytest.raises(
        UserError, match=r"pre_trained_resnet18.*put that file at .*checkpoints.resnet18.*\.pth"
    ) as caught:
        build_network("pre_trained_resnet18", 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pre_trained_resnet18", "pre_trained_torchvision:resnet18"])
def test_pretrained_weights_are_taken_from_the_cache(monkeypatch, name):
    weights = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda *a, **k: weights)
    network = build_network(name, 10).state_dict()
    assert torch.equal(network["layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    assert network["fc.weight"].shape == (10, 512)


def test_the_file_that_is_named_is_the_one_that_is_read(monkeypatch, tmp_path):
    """The way out of the error line: the file, put there by hand."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: 1 / 0)
    weights = torchvision.models.shufflenet_v2_x0_5().state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth")
    network = build_network("pre_trained_torchvision:shufflenet_v2_x0_5", 10).state_dict()
    assert torch.equal(network["conv1.0.weight"], weights["conv1.0.weight"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name):
    network = build_network(f"torchvision:{name}", 4).train()
    assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 4)
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)] == [4]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_of_pretrained_weights_are_left_out(monkeypatch, name):
    weights = torchvision.models.get_model(name, init_weights=False).state_dict()
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", lambda *a, **k: weights)
    network = build_network(f"pre_trained_torchvision:{name}", 4)
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)] == [4]


def test_unknown_names_are_refused():
    with pytest.raises(
        UserError, match=r"'torchvision:resnet19' is unknown; did you mean 'torchvision:resnet18'"
    ):
        build_network("torchvision:resnet19", 10)
