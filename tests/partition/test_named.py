"""Branched networks by name, from files and from folders of runs; they train like any network."""

import json

import pytest
import torch

from neq.cli import main
from neq.config import network, resolve, to_mapping
from neq.config.catalog import is_pretrained
from neq.networks.build import build_network
from neq.networks.recipe import named_recipe, read_recipe
from neq.partition import PUBLISHED, published, write_model
from neq.partition.costs import conv_weights
from neq.results.best_network import load_best
from neq.runs import identity, read_summary
from neq.utils.errors import UserError
from tests.partition.toys import IMAGE, base, two

SHORT = ["--dataset", "digits", "--n_epochs", "1", "--warmup_epochs", "0", "--image_size", str(IMAGE)]
SHORT += ["--device", "cpu", "--base_batch_size", "256"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A model's file."""
    path = tmp_path_factory.mktemp("model") / "toy.json"
    write_model(path, two())
    return path


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """The folder of a run of the toy."""
    folder = tmp_path_factory.mktemp("branched") / "run"
    flags = ["--neuron_selection", "velocity", "--ratio", "0.3", "--run-dir", str(folder)]
    assert main(["train", "--net_name", f"branched:{file}", *SHORT, *flags]) == 0
    return folder


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_by_name(name):
    entry = network(f"branched:{name}")
    convs, weights = conv_weights(published(name))
    assert (entry.input_size, entry.convs, entry.conv_weights) == (224, convs, weights)
    with torch.device("meta"):
        built = build_network(f"branched:{name}", 7)
    assert built.classifier.out_features == 7
    assert built.model == published(name)


def test_a_name_builds_the_same_network_every_time_and_loads_weights(tmp_path):
    name = "branched:syncnas_fbnet_c_100"
    one, other = (build_network(name, 7, seed=3) for _ in range(2))
    assert same(one, other)
    torch.save(one.state_dict(), tmp_path / "weights.pth")
    again = build_network(name, 7, seed=4, weights=str(tmp_path / "weights.pth"))
    assert same(again, one)
    recipe = named_recipe(name, one, 7)
    assert (recipe.net_name, recipe.transforms) == (name, ())


def test_unknown_names_are_one_line(capsys, tmp_path):
    assert main(["train", "--net_name", "branched:resnet18", "--dry-run"]) == 2
    line = capsys.readouterr().err
    assert "net_name 'branched:resnet18' is unknown" in line
    assert "branched:mobilenet_v2" in line
    with pytest.raises(UserError, match="holds no trained network"):
        network(f"branched:{tmp_path}")
    with pytest.raises(UserError, match="cannot be read"):
        network(f"branched:{tmp_path / 'none.json'}")
    with pytest.raises(UserError, match="'branched:file' needs its file"):
        build_network("branched:file", 5, weights="none")


def test_a_file_is_recorded_as_the_weights_and_may_move(file, tmp_path):
    once = resolve({}, {"net_name": f"branched:{file}", "dataset": "digits"}).config
    assert (once.net_config.net_name, once.net_config.weights) == ("branched:file", str(file))
    assert once.data_provider.image_size == IMAGE
    assert resolve(to_mapping(once), {}).config == once
    moved = tmp_path / "moved.json"
    moved.write_bytes(file.read_bytes())
    again = resolve({}, {"net_name": f"branched:{moved}", "dataset": "digits"}).config
    assert identity(again) == identity(once)
    write_model(moved, two("annnaca"))
    other = resolve({}, {"net_name": f"branched:{moved}", "dataset": "digits"}).config
    assert identity(other) != identity(once)


def test_a_recipe_needs_no_file(file, tmp_path):
    path = tmp_path / "gone.json"
    path.write_bytes(file.read_bytes())
    built = build_network("branched:file", 5, weights=str(path))
    recipe = named_recipe("branched:file", built, 5)
    path.unlink()
    again = recipe.build()
    assert again.model == built.model == two()
    shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in (built, again)]
    assert shapes[0] == shapes[1]


def test_a_random_start_is_told_from_a_trained_one(file, run):
    assert not is_pretrained("branched:mobilenet_v2", "default")
    assert not is_pretrained(f"branched:{file}", "default")
    assert not is_pretrained("branched:file", str(file))
    assert is_pretrained("branched:mobilenet_v2", "weights.pth")
    assert is_pretrained(f"branched:{run}", "default")
    assert is_pretrained("branched:file", str(run / "checkpoint" / "best.safetensors"))


@pytest.mark.slow
def test_a_run_trains_predicts_and_starts_another(run, tmp_path):
    best = load_best(run)
    assert best.network.model == two()
    assert read_recipe(run).transforms[0].name == "branched"
    assert read_summary(run)["test_top1"] > 0
    start = build_network("branched:file", 10, weights=str(run / "checkpoint" / "best.safetensors"))
    assert same(start, best.network)
    assert start.eval()(torch.zeros(1, 3, IMAGE, IMAGE)).shape == (1, 10)
    fresh = build_network(f"branched:{run}", 4)
    assert fresh.classifier.out_features == 4
    assert torch.equal(fresh.stem[0].weight, best.network.stem[0].weight)
    once = resolve({}, {"net_name": f"branched:{run}", "dataset": "digits"}).config
    assert once.net_config.net_name == "branched:file"
    assert once.net_config.weights.endswith("best.safetensors")
    flags = ["--neuron_selection", "random", "--budget", "40KB", "--run-dir", str(tmp_path / "next")]
    assert main(["train", "--net_name", f"branched:{run}", *SHORT, *flags]) == 0
    assert load_best(tmp_path / "next").network.model == two()


def test_a_run_that_was_changed_or_damaged_starts_none(run, tmp_path):
    for name in ("recipe.json", "config.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "best.safetensors").write_bytes((run / "checkpoint" / "best.safetensors").read_bytes())
    assert build_network(f"branched:{tmp_path}", 10).model == two()
    content = json.loads((run / "recipe.json").read_text())
    content["transforms"][0]["arguments"]["model"]["sync"][6] = "n"
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="sync n behind stage 6 is not allowed"):
        build_network(f"branched:{tmp_path}", 10)
    content["transforms"].append(content["transforms"][0])
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds no branched network, or one that was changed"):
        build_network(f"branched:{tmp_path}", 10)
    for line in ("3", *(f"{{image_size: {size}, mean_std: null}}" for size in ("abc", 10**9, "null"))):
        (tmp_path / "config.yaml").write_text(f"data_provider: {line}\n")
        with pytest.raises(UserError, match=r"config\.yaml is damaged"):
            network(f"branched:{tmp_path}")


def test_a_plain_network_of_a_file_trains_by_a_scheme(tmp_path):
    path = tmp_path / "plain.json"
    write_model(path, base())
    flags = ["--neuron_selection", "SU", "--initialization", "SU", "--ratio", "1"]
    flags += ["--manual_weight_idx", "[3, 8]", "--weight_update_ratio", "[0.5, 1]", "--n_bias_update", "0"]
    folder = tmp_path / "run"
    assert main(["train", "--net_name", f"branched:{path}", *SHORT, *flags, "--run-dir", str(folder)]) == 0
    assert load_best(folder).network.model == base()


@pytest.mark.slow
def test_a_run_becomes_onnx(run, tmp_path):
    pytest.importorskip("onnxruntime")
    assert main(["export", str(run), "--onnx", str(tmp_path / "net.onnx")]) == 0
    assert (tmp_path / "net.onnx").stat().st_size > 10_000
