"""A layer before the head: saved with the network, loaded with its weights, and faster than the rest."""

from functools import partial

import pytest
import torch
from torch import nn

from neq.adaptation.bottleneck import add_bottleneck, with_bottleneck
from neq.cli import main
from neq.config import resolve
from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.networks.recipe import named_recipe
from neq.results.best_network import load_best
from neq.utils.errors import UserError
from tests.adaptation.runs import adaptation, domains
from tests.cli.test_adapt import domain
from tests.training.runs import stopped_and_resumed


def config_of(**settings):
    return resolve({}, {"objective": "adapt_mcc", "bottleneck": 16, "net_name": "mcunet-in0", **settings})


def test_features_are_fewer_and_the_recipe_builds_the_network_again():
    network = build_network("mcunet-in0", 3, weights="none")
    features = network.get_submodule(head_name(network)).in_features
    made = with_bottleneck(network, config_of().config)
    assert made.get_submodule(head_name(made)).in_features == 16
    again = named_recipe("mcunet-in0", made, 3).build()
    shapes = {name: value.shape for name, value in made.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert (16, features) in shapes.values()
    other = with_bottleneck(build_network("mcunet-in0", 3, weights="none"), config_of().config)
    assert all(torch.equal(*pair) for pair in zip(made.parameters(), other.parameters(), strict=True))
    assert head_name(with_bottleneck(network, config_of(bottleneck=None).config)) == head_name(network)


def test_what_lies_between_pooled_features_and_head_makes_room():
    network = add_bottleneck(build_network("mobilenet_v3_small", 3, weights="none"), 32)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert [(each.in_features, each.out_features) for each in linear] == [(576, 32), (32, 3)]
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    pooled = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    whole = nn.Sequential(*pooled, nn.ReLU(), nn.Linear(4, 2))
    assert tuple(add_bottleneck(whole, 3)[:3]) == pooled


def test_a_head_of_another_kind_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match="a bottleneck needs a head that is Linear, here it is Conv2d"):
        add_bottleneck(network, 2)


@pytest.mark.slow
def test_a_run_is_opened_by_its_recipe_and_starts_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["adapt", "--source", domain(tmp_path / "a", 0), "--target", domain(tmp_path / "b", 1)]
    arguments += ["--net_name", "mcunet-in0", "--image_size", "24", "--base_batch_size", "8"]
    arguments += ["--device", "cpu", "--bottleneck", "16", "--n_epochs", "1", "--domain_norms", "joint"]
    first = [*arguments, "--method", "source", "--weights", "none", "--run-dir", "source"]
    assert main(first) == 0
    best = load_best(tmp_path / "source").network
    file = "source/checkpoint/best.safetensors"
    assert main([*arguments, "--method", "adabn", "--weights", file, "--run-dir", "adabn"]) == 0
    last = load_best(tmp_path / "adabn").network
    smaller = [argument if argument != "16" else "8" for argument in arguments]
    other = [*smaller, "--method", "adabn", "--weights", file, "--run-dir", "other"]
    capsys.readouterr()
    assert main(other) == 2
    assert "do not fit" in capsys.readouterr().err
    for (name, value), mine in zip(best.named_parameters(), last.parameters(), strict=True):
        assert torch.equal(value, mine), name  # nothing but statistics changes


def outcome(folder, files, stop=None):
    settings = {"head_rate": 10.0, "momentum": 0.9, "bottleneck": 8, "norm_mode": "train"}
    opened = partial(adaptation, folder, "dann", files, **settings)
    summary, _, run = stopped_and_resumed(opened, stop)
    return summary, {**run.network.state_dict(), **run.task.extra_parameters()}


@pytest.mark.slow
def test_resuming_is_bit_identical_with_a_rate_of_its_own(tmp_path):
    files = domains(tmp_path, images=100)
    whole, parts = outcome(tmp_path / "whole", files), outcome(tmp_path / "parts", files, (1, 1))
    assert parts[0] == whole[0]
    assert all(torch.equal(value, whole[1][name]) for name, value in parts[1].items())
