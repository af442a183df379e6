import json

import pytest
import torch

from neq.compression import low_rank, read_start, sparsify, write_compressed
from neq.config import network, resolve, to_mapping
from neq.experiment.network import outline
from neq.networks.build import build_network
from neq.networks.recipe import named_recipe
from neq.results.best_network import load_best
from neq.runs import identity
from neq.utils.errors import UserError

pytest.importorskip("tensorly")


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """A compressed network of a run."""
    path = tmp_path_factory.mktemp("compressed") / "net"
    best = load_best(tiny_run)
    write_compressed(path, sparsify(low_rank(read_start(best), 0.5), 0.3), best, {"steps": {}})
    return path


def test_a_compressed_network_keeps_weights_classes_and_recipe(folder, tiny_run):
    best = load_best(folder)
    classes = len(best.classes)
    built = build_network("compressed:file", classes, weights=str(folder / "best.safetensors"))
    expected = best.network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in built.state_dict().items())
    assert best.classes == load_best(tiny_run).classes
    recipe = named_recipe("compressed:file", built, classes)
    assert [each.name for each in recipe.transforms] == ["low_rank", "sparse"]
    assert recipe.build().state_dict().keys() == built.state_dict().keys()


def test_another_number_of_classes_gets_a_new_head(folder):
    built = build_network(f"compressed:{folder}", 3)
    recipe = named_recipe("compressed:file", built, 3)
    assert built.get_submodule(recipe.head).out_features == 3
    again = recipe.build()
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in built.state_dict().items()
    }


def test_its_entry_and_its_outline(folder, tiny_run):
    entry, settings = network(f"compressed:{folder}"), load_best(tiny_run).config.data_provider
    assert (entry.input_size, entry.mean_std) == (settings.image_size, settings.mean_std)
    table = outline(f"compressed:{folder}")
    assert len(table.layers) > len(outline("mcunet-in0").layers)  # two factors in place of a conv


def test_a_run_records_its_file_and_stays_the_same_when_it_moves(folder, tmp_path):
    once = resolve({}, {"net_name": f"compressed:{folder}", "dataset": "digits"}).config
    assert once.net_config.net_name == "compressed:file"
    assert once.net_config.weights == str(folder / "best.safetensors")
    assert resolve(to_mapping(once), {}).config == once
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in folder.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    again = resolve({}, {"net_name": f"compressed:{moved}", "dataset": "digits"}).config
    assert identity(again) == identity(once)


def test_two_recipes_over_equal_weights_are_two_runs(tiny_run, tmp_path):
    best = load_best(tiny_run)
    start = read_start(best)
    found = set()
    for name, made in [("dense", start), ("sparse", start.by("sparse", {}, layers=["blocks.1.depthwise.0"]))]:
        made.network.load_state_dict(start.network.state_dict())
        write_compressed(tmp_path / name, made, best, {})
        config = resolve({}, {"net_name": f"compressed:{tmp_path / name}", "dataset": "digits"}).config
        found.add(json.dumps(identity(config), sort_keys=True))
    assert len(found) == 2


def test_weights_of_another_recipe_are_refused(folder, tmp_path, tiny_run):
    copied = tmp_path / "net"
    copied.mkdir()
    for file in folder.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    content = json.loads((copied / "recipe.json").read_text())
    content["transforms"][1]["arguments"]["layers"].pop()
    (copied / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is not of the recipe\.json beside it"):
        build_network(f"compressed:{copied}", 5)


def test_a_recipe_cannot_make_a_network_grow(folder, tmp_path):
    for name in ("best.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    content = json.loads((folder / "recipe.json").read_text())
    layer = next(iter(content["transforms"][0]["arguments"]["layers"]))
    grown = {
        "low_rank": {"layers": {layer: {"kind": "svd", "ranks": [10**6]}}},
        "widths": {"layers": {layer: {"out_channels": 10**9}}},
        "attention": {"kind": "se", "layers": {layer: 10**6}},
    }
    modules = {"low_rank": "factorization", "widths": "widths", "attention": "attention"}
    for name, arguments in grown.items():
        module = f"neq.compression.{modules[name]}"
        content["transforms"] = [{"name": name, "arguments": arguments, "module": module}]
        (tmp_path / "recipe.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=f"transform '{name}' .*(would grow|has no 1000000 channels)"):
            build_network(f"compressed:{tmp_path}", 5)
    content["transforms"] *= 101
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="at most 100 transforms"):
        build_network(f"compressed:{tmp_path}", 5)


def test_what_is_no_compressed_network_is_refused(folder, tmp_path, tiny_run):
    with pytest.raises(UserError, match="is no compressed network; see neq compress"):
        network(f"compressed:{tmp_path}")
    with pytest.raises(UserError, match="needs its folder; give net_name compressed:FOLDER"):
        build_network("compressed:file", 5)
    for name in ("best.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match=r"has no recipe\.json"):
        build_network(f"compressed:{tmp_path}", 5)
    content = json.loads((folder / "recipe.json").read_text())
    content["transforms"][0]["arguments"]["layers"] = {"nowhere": {"kind": "svd", "ranks": [1]}}
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"transform 'low_rank' with .* fails"):
        build_network(f"compressed:{tmp_path}", 5)
    for line in ("3", *(f"{{image_size: {size}, mean_std: null}}" for size in ("abc", 10**9, "null"))):
        (tmp_path / "config.yaml").write_text(f"data_provider: {line}\n")
        with pytest.raises(UserError, match=r"config\.yaml is damaged"):
            network(f"compressed:{tmp_path}")
