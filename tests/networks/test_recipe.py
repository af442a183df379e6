import json

import pytest
import torch
from torch import nn

from neq.networks import recipe as recipe_module
from neq.networks.build import build_network
from neq.networks.recipe import (
    Recipe,
    Transform,
    apply_transform,
    named_recipe,
    read_recipe,
    register_transform,
    write_recipe,
)
from neq.runs.layout import CONTENT
from neq.utils.errors import UserError


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """Two toy transforms, registered while a test runs."""
    monkeypatch.setattr(recipe_module, "_transforms", {})
    register_transform("toy.remove_hidden_channels")(remove_hidden_channels)
    register_transform("toy.factorize")(factorize)


def remove_hidden_channels(network, block, keep):
    """Keeps some of the hidden channels of an inverted residual block of MCUNet."""
    found = network.get_submodule(block)
    expand, expand_norm = found.pointwise1
    depthwise, depthwise_norm = found.depthwise
    project = found.pointwise2[0]
    for module in (expand, expand_norm, depthwise, depthwise_norm):
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.dim():
                values = tensor.detach()[keep]
                setattr(module, name, nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values)
    project.weight = nn.Parameter(project.weight.detach()[:, keep])
    expand.out_channels = depthwise.in_channels = depthwise.out_channels = depthwise.groups = len(keep)
    expand_norm.num_features = depthwise_norm.num_features = project.in_channels = len(keep)
    return network


def factorize(network, layer, rank):
    """W = B A with A [rank, in] and B [out, rank]: of random values alike."""
    found = network.get_submodule(layer)
    first = nn.Linear(found.in_features, rank, bias=False)
    network.set_submodule(layer, nn.Sequential(first, nn.Linear(rank, found.out_features)))
    return network


def changed():
    """A network and its recipe: channels removed from a block, the head factorized."""
    network = build_network("mcunet-in0", 4)
    recipe = named_recipe("mcunet-in0", network, 4)
    network, recipe = apply_transform(
        network, recipe, "toy.remove_hidden_channels", block="blocks.1", keep=(0, 2, 5)
    )
    return apply_transform(network, recipe, "toy.factorize", head="classifier.1", layer="classifier", rank=3)


def test_a_recipe_builds_the_changed_network_again(tmp_path):
    network, recipe = changed()
    write_recipe(tmp_path, recipe)
    found = read_recipe(tmp_path)
    assert found == recipe
    assert found.head == "classifier.1"
    again = found.build()
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))


def test_a_recipe_is_plain_json(tmp_path):
    _, recipe = changed()
    write_recipe(tmp_path, recipe)
    assert json.loads((tmp_path / "recipe.json").read_text()) == {
        "format": 1,
        "net_name": "mcunet-in0",
        "classes": 4,
        "head": "classifier.1",
        "transforms": [
            {
                "name": "toy.remove_hidden_channels",
                "arguments": {"block": "blocks.1", "keep": [0, 2, 5]},
                "module": __name__,
            },
            {
                "name": "toy.factorize",
                "arguments": {"layer": "classifier", "rank": 3},
                "module": __name__,
            },
        ],
    }


def test_a_runs_recipe_is_a_file_of_its_record():
    assert recipe_module.RECIPE in CONTENT


def test_a_folder_without_a_recipe(tmp_path):
    assert read_recipe(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is damaged"),
        ("[]", "net_name, classes, head and at most 100 transforms are expected"),
        ('{"format": 2}', "format 2, this version of neq reads 1"),
        ('{"net_name": "mbv2", "classes": 1e9, "head": "", "transforms": []}', "are expected"),
        ('{"net_name": "mbv2", "classes": 2, "head": "", "transforms": [3]}', "arguments and module, not 3"),
    ],
)
def test_a_damaged_recipe_is_refused(tmp_path, content, reason):
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(UserError, match=reason) as error:
        read_recipe(tmp_path)
    assert str(tmp_path / "recipe.json") in str(error.value)
    assert str(error.value).endswith("put it back")


def test_an_unknown_transform_is_refused():
    recipe = Recipe("mcunet-in0", 4, "classifier", (Transform("prune", {}, "somewhere.else"),))
    with pytest.raises(UserError) as error:
        recipe.build()
    assert str(error.value) == (
        "transform 'prune' is unknown; registered are: toy.factorize, toy.remove_hidden_channels. "
        "Import the module that registers it, 'somewhere.else'"
    )


def test_only_modules_of_neq_are_imported_for_a_transform(monkeypatch):
    imported = []
    monkeypatch.setattr(recipe_module, "import_module", imported.append)
    for module in ("neq.compression.prune", "os", "neq.__main__", "neq", "neq..os", "neqother.x"):
        recipe = Recipe("mcunet-in0", 4, "classifier", (Transform("prune", {}, module),))
        with pytest.raises(UserError, match="transform 'prune' is unknown"):
            recipe.build()
    assert imported == ["neq.compression.prune"]


def test_a_transform_that_fails_is_one_line():
    recipe = Recipe("mcunet-in0", 4, "classifier", (Transform("toy.factorize", {"layer": "none"}),))
    with pytest.raises(UserError, match=r"transform 'toy.factorize' with \{'layer': 'none'\} fails \("):
        recipe.build()


def test_arguments_that_json_cannot_hold_are_refused():
    network, recipe = changed()
    with pytest.raises(ValueError, match="not JSON compliant"):
        apply_transform(network, recipe, "toy.factorize", layer="classifier", rank=float("nan"))


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match=r"transform 'toy\.factorize' is registered already"):
        register_transform("toy.factorize")(remove_hidden_channels)


def test_a_network_that_no_name_describes_brings_its_recipe():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    own = Recipe("mcunet-in0", 3, "1", (Transform("toy.factorize", {"layer": "classifier", "rank": 2}),))
    network.neq_recipe = lambda changed, classes: own if changed is network and classes == 3 else None
    assert named_recipe("toy:file", network, 3) == own
