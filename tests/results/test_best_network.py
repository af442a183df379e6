"""The best network of a run that was changed after it was built, loaded by its recipe."""

import shutil

import pytest
import safetensors.torch
import torch

from neq.cli import main
from neq.networks import recipe as recipe_module
from neq.networks.recipe import apply_transform, read_recipe, register_transform, write_recipe
from neq.results.best_network import load_best
from neq.utils.errors import UserError
from tests.networks.test_recipe import factorize, remove_hidden_channels


@pytest.fixture
def changed_run(tiny_run, tmp_path, monkeypatch):
    """A copy of a run whose best network was pruned and factorized, and that network."""
    monkeypatch.setattr(recipe_module, "_transforms", {})
    register_transform("toy.remove_hidden_channels")(remove_hidden_channels)
    register_transform("toy.factorize")(factorize)
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    recipe = read_recipe(folder)
    network, recipe = apply_transform(
        load_best(folder).network, recipe, "toy.remove_hidden_channels", block="blocks.1", keep=[1, 3, 4]
    )
    network, recipe = apply_transform(
        network, recipe, "toy.factorize", head="classifier.1", layer="classifier", rank=4
    )
    safetensors.torch.save_file(network.state_dict(), folder / "checkpoint" / "best.safetensors")
    write_recipe(folder, recipe)
    return folder, network.eval()


def outputs(network):
    with torch.no_grad():
        return network(torch.linspace(-1, 1, 2 * 3 * 24 * 24).view(2, 3, 24, 24))


def test_a_changed_network_is_loaded_by_its_recipe(changed_run):
    folder, network = changed_run
    best = load_best(folder)
    assert best.network.blocks[1].depthwise[0].weight.shape[0] == 3
    assert best.network.classifier[0].out_features == 4
    assert torch.equal(outputs(best.network), outputs(network))


def test_a_changed_network_is_copied_with_its_recipe(changed_run, tmp_path):
    from neq.results.best import copy_best

    folder, network = changed_run
    assert "recipe.json" in copy_best(folder, tmp_path / "copy")
    assert torch.equal(outputs(load_best(tmp_path / "copy").network), outputs(network))


@pytest.mark.slow
def test_a_changed_network_is_exported(changed_run, tmp_path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    folder, network = changed_run
    path = tmp_path / "net.onnx"
    assert main(["export", str(folder), "--onnx", str(path)]) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.linspace(-1, 1, 2 * 3 * 24 * 24).view(2, 3, 24, 24)
    (found,) = session.run(["logits"], {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(found), outputs(network), atol=1e-4)


def test_a_run_without_a_recipe_is_loaded_by_its_name(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    (folder / "recipe.json").unlink()
    assert torch.equal(outputs(load_best(folder).network), outputs(load_best(tiny_run).network))


def test_weights_that_do_not_fit_the_recipe_are_refused(changed_run, tiny_run):
    folder, _ = changed_run
    shutil.copy(tiny_run / "recipe.json", folder / "recipe.json")
    with pytest.raises(UserError, match="are of another network"):
        load_best(folder)
    text = (tiny_run / "recipe.json").read_text()
    shutil.copy(tiny_run / "checkpoint" / "best.safetensors", folder / "checkpoint" / "best.safetensors")
    (folder / "recipe.json").write_text(text.replace('"classes": 10', '"classes": 11'))
    with pytest.raises(UserError, match="do not fit"):  # not: loaded with a random head
        load_best(folder)
    (folder / "recipe.json").write_text(text.replace('"mcunet-in0"', '"no-such"'))
    with pytest.raises(UserError, match=r"recipe\.json: net_name 'no-such' is unknown"):
        load_best(folder)
