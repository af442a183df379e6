"""Int8 networks by name, from files and from tiny-training's release."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from neq.cli import main
from neq.config import network, resolve, to_mapping
from neq.int8 import Images, Int8Network, named, read_tiny_training, write_int8
from neq.int8.named import untrained
from neq.networks.build import build_network
from neq.networks.weights import load_weights
from neq.runs import identity
from neq.utils.errors import UserError
from tests.int8.toys import content, excited, write

ASSETS = Path(os.environ.get("NEQ_TEST_ASSETS", "/nowhere"))
NAME = "int8:mcunet-in1"


def body(one):
    """The state of a network without its classifier."""
    return {name: value for name, value in one.state_dict().items() if not name.startswith("classifier.")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["mcunet-in1", "mbv2-w0.35", "proxyless-w0.3"])
def test_a_random_start_has_the_layers_of_its_plain_network(name):
    one, other = (build_network(f"int8:{name}", 7, seed=3, weights="none") for _ in range(2))
    assert same(one.state_dict(), other.state_dict())
    plain = build_network(f"{name}_folded", 7)
    weights = {key for key, _ in plain.named_parameters()}
    assert {key for key, _ in one.named_parameters()} == weights
    shapes = {key: value.shape for key, value in plain.named_parameters()}
    assert {key: value.shape for key, value in one.named_parameters()} == shapes
    with torch.no_grad():
        outputs = one(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert outputs.shape == (2, 7)
    assert float(outputs.std()) > 0
    entry = network(f"int8:{name}")
    assert (entry.input_size, entry.convs, entry.conv_weights) == (
        128,
        network(name).convs,
        network(name).conv_weights,
    )


def test_files_of_every_kind_are_read_and_get_a_new_head(tmp_path):
    described = untrained("mcunet-in1")
    there = Int8Network(described)
    write_int8(tmp_path / "codes.safetensors", described)
    safetensors.torch.save_file(there.state_dict(), tmp_path / "run.safetensors")
    torch.save({"state_dict": there.state_dict()}, tmp_path / "run.pth")
    for file in ("codes.safetensors", "run.safetensors", "run.pth"):
        here = build_network(NAME, 7, weights=str(tmp_path / file))
        assert same(body(here), body(there))
        assert here.classifier.weight.shape == (7, 160)


def test_other_networks_and_damaged_files_are_refused(tmp_path):
    write(tmp_path / "toy.pkl", content())
    write_int8(tmp_path / "other.safetensors", untrained("mbv2-w0.35"))
    (tmp_path / "text.safetensors").write_bytes(b"text")
    state = Int8Network(untrained("mcunet-in1")).state_dict()
    state["blocks.0.depthwise._extra_state"][1, 0] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    for file, reason in {
        "toy.pkl": "are of another network than int8:mcunet-in1",
        "other.safetensors": "are of another network than int8:mcunet-in1",
        "text.safetensors": "cannot be read",
        "absent.pkl": "No such file",
        "absent.safetensors": "is not a file",
        "nan.safetensors": "scale nan is not a positive number",
    }.items():
        with pytest.raises(UserError, match=reason) as caught:
            build_network(NAME, 7, weights=str(tmp_path / file))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="scale nan"):
        load_weights(build_network(NAME, 7, weights="none"), "classifier", str(tmp_path / "nan.safetensors"))


def test_an_unknown_name_is_one_line(capsys):
    assert main(["train", "--net_name", "int8:resnet18", "--dry-run"]) == 2
    line = capsys.readouterr().err
    assert "'int8:resnet18' is unknown" in line
    assert "int8:mcunet-in1" in line


def test_a_file_is_a_network_of_its_own(tmp_path):
    path = tmp_path / "own.safetensors"
    write_int8(path, replace(excited(), classes=()))
    entry = network(f"int8:{path}")
    assert (entry.file, entry.input_size, entry.mean_std.mean) == (str(path), 16, (0.5, 0.5, 0.5))
    assert (entry.convs, entry.conv_weights) == (6, sum(each.weight.numel() for each in excited().convs))
    write_int8(path, replace(excited(), images=Images(24)))
    assert network(f"int8:{path}").input_size == 24  # nothing of the former file is remembered
    with pytest.raises(UserError, match="net_name 'int8:file' needs its file; give net_name int8:FILE"):
        build_network("int8:file", 5, weights="none")
    pickle = write(tmp_path / "toy.pkl", content())
    assert network(f"int8:{pickle}").convs == 6


def test_a_file_keeps_a_classifier_of_as_many_classes(tmp_path):
    path, there = tmp_path / "own.safetensors", excited()
    write_int8(path, there)
    same, other = (build_network("int8:file", count, weights=str(path)) for count in (5, 6))
    assert torch.equal(same.fc.weight, there.head.weight)
    assert other.fc.weight.shape == (6, 12)
    assert not same.classes


def test_a_run_records_a_file_as_its_weights(tmp_path):
    path = tmp_path / "own.safetensors"
    write_int8(path, excited())
    once = resolve({}, {"net_name": f"int8:{path}", "dataset": "digits"}).config
    assert (once.net_config.net_name, once.net_config.weights) == ("int8:file", str(path))
    assert (once.data_provider.image_size, once.data_provider.mean_std.std) == (16, (0.5, 0.5, 0.5))
    assert resolve(to_mapping(once), {}).config == once
    before = identity(once)
    moved = path.rename(tmp_path / "moved.safetensors")
    again = resolve({}, {"net_name": f"int8:{moved}", "dataset": "digits"}).config
    assert identity(again) == before
    for weights in ("none", "other.pth"):
        with pytest.raises(UserError, match="name two starts; give one"):
            resolve({}, {"net_name": f"int8:{moved}", "weights": weights})


def test_the_release_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    release = tmp_path / "release"
    release.mkdir()
    file = write(release / "mcunet-5fps.pkl", content())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(named, "RELEASE", release.as_uri())
    cached = tmp_path / "cache" / "checkpoints" / "tiny-training_mcunet-5fps.pkl"
    with pytest.raises(UserError, match=rf"could not be loaded from .*put that file at {cached}"):
        build_network(NAME, 7)
    assert not cached.exists()
    monkeypatch.setitem(named.SHA256, "mcunet-5fps", hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(UserError, match="are of another network"):  # it arrives, and is a toy
        build_network(NAME, 7)
    assert cached.read_bytes() == file.read_bytes()
    cached.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"cannot be read \(its checksum is wrong\); remove it"):
        build_network(NAME, 7)


@pytest.mark.skipif(
    not (ASSETS / "weights").is_dir(), reason="NEQ_TEST_ASSETS names no folder with weights/ and data/"
)
@pytest.mark.parametrize("name", ["mcunet-in1", "mbv2-w0.35", "proxyless-w0.3"])
def test_the_published_files_are_those_of_the_release(name):
    file = named.PUBLISHED[name]
    path = ASSETS / "weights" / f"tinytraining_{file}.pkl"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == named.SHA256[file]
    here = build_network(f"int8:{name}", 10, weights=str(path))
    assert same(body(here), body(Int8Network(read_tiny_training(path))))
