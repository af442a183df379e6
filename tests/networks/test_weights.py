import argparse
import pickle
import urllib.error
import zipfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torch.optim.swa_utils import AveragedModel

from neq.cli import main
from neq.networks.build import build_network
from neq.networks.weights import load_weights, read_weights
from neq.utils.errors import UserError
from tests.toys import toy

FAST = ["--image_size", "16", "--n_epochs", "1", "--warmup_epochs", "0", "--base_batch_size", "256"]


def saved(folder, content, name="weights.pth"):
    path = folder / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return str(path)


def same(one, other, names=None):
    return all(torch.equal(one[name], other[name]) for name in names or one)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
def test_a_file_of_the_same_network_is_loaded_with_its_head(name, tmp_path, caplog):
    there = build_network("mcunet-in0", 7, seed=1)
    there.first_conv[1].running_mean += 3
    file = saved(tmp_path, there.state_dict(), name)
    here = build_network("mcunet-in0", 7, seed=2, weights=file)
    assert same(there.state_dict(), here.state_dict())
    assert not caplog.records


def compiled(network):
    """Named as torch.compile does."""
    return nn.ModuleDict({"_orig_mod": network})


def lightning(network):
    """Named as in most modules of Lightning."""
    return nn.ModuleDict({"model": network})


ARGUMENTS = argparse.Namespace(model="toy", lr=0.1, data_dir="x", opt_betas=None, sizes=[1, (2, 3)])
WRAPPERS = {
    "plain": (),
    "parallel": (nn.DataParallel,),
    "compiled": (compiled,),
    "averaged": (AveragedModel,),
    "compiled, parallel": (nn.DataParallel, compiled),
    "parallel, compiled": (compiled, nn.DataParallel),
    "parallel, averaged": (nn.DataParallel, AveragedModel),
    "averaged, compiled": (AveragedModel, compiled),
    "lightning": (lightning,),
    "compiled in lightning, parallel": (compiled, lightning, nn.DataParallel),
}
CHECKPOINTS = {
    "hub.bin": lambda state: state,
    "lightning.ckpt": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": state,
        "hyper_parameters": {"lr": 0.1},
    },
    "timm.pth.tar": lambda state: {
        "epoch": 3,
        "arch": "toy",
        "state_dict": state,
        "args": ARGUMENTS,
        "metric": 71.5,
        "state_dict_ema": {name: tensor + 1 for name, tensor in state.items()},
    },
    "torchvision.pth": lambda state: {"model": state, "lr_scheduler": {"last_epoch": 3}, "args": ARGUMENTS},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("wrappers", WRAPPERS.values(), ids=WRAPPERS)
def test_checkpoints_of_scripts_and_prefixes_of_wrappers_are_unwrapped(name, wrappers, tmp_path):
    wrapped = there = toy(1)
    for wrap in wrappers:
        wrapped = wrap(wrapped)
    file = saved(tmp_path, CHECKPOINTS[name](wrapped.state_dict()), name)
    network = toy(2)
    load_weights(network, "head", file)
    assert same(there.state_dict(), network.state_dict())


def test_the_averaged_weights_are_read_where_they_are_asked_for_or_alone(tmp_path):
    state, averaged = toy(1).state_dict(), AveragedModel(toy(2)).state_dict()
    both = saved(tmp_path, {"model": state, "model_ema": averaged, "optimizer": {"state": {}}})
    network = toy(3)
    load_weights(network, "head", both)
    assert same(state, network.state_dict())
    load_weights(network, "head", both, "model_ema")
    assert same(toy(2).state_dict(), network.state_dict())
    load_weights(network, "head", saved(tmp_path, {"state_dict_ema": state}, "alone.pth"))
    assert same(state, network.state_dict())
    with pytest.raises(
        UserError, match=r"under weights_key 'ema'; allowed: 'model', 'model_ema', 'optimizer'$"
    ):
        load_weights(network, "head", both, "ema")
    for name in ("plain.pth", "plain.safetensors"):
        with pytest.raises(UserError, match="under weights_key 'ema'; allowed: none, leave weights_key out"):
            read_weights(saved(tmp_path, state, name), "ema")


def test_a_network_whose_own_names_look_wrapped_keeps_them(tmp_path):
    network, file = lightning(toy(2)), saved(tmp_path, lightning(toy(1)).state_dict())
    load_weights(network, "model.head", file)
    assert same(toy(1).state_dict(), network["model"].state_dict())
    load_weights(network, "model.head", saved(tmp_path, nn.DataParallel(lightning(toy(3))).state_dict()))
    assert same(toy(3).state_dict(), network["model"].state_dict())


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.float64(71.5), "multiarray.scalar"),
        (Path("x"), "Path"),
        (toy(1), "tests.toys."),
        (OrderedDict(rate=Fraction(1, 3)), "fractions.Fraction"),
        (argparse.Namespace(folder=Path("x")), "Path"),
    ],
)
def test_what_is_refused_is_named_by_its_type(value, named, old_format, tmp_path):
    path = tmp_path / "a.pth"
    content = {"state_dict": toy(1).state_dict(), "more": value}
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    with pytest.raises(UserError, match=r"weights '.*' hold '\S+', more than tensors and plain") as caught:
        read_weights(str(path))
    assert named in str(caught.value)


def test_a_torchscript_program_is_named(tmp_path):
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:  # as torch.jit.save begins
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"program/{name}", "3")
    with pytest.raises(
        UserError, match=r"program.pt' cannot be read \(it is a TorchScript program\); replace"
    ):
        read_weights(str(path))


def test_reading_leaves_what_torch_allows_as_it_was(tmp_path):
    allowed = torch.serialization.get_safe_globals
    before = set(allowed())
    file = saved(tmp_path, CHECKPOINTS["torchvision.pth"](toy(1).state_dict()))
    read_weights(file)
    assert set(allowed()) == before
    with torch.serialization.safe_globals([argparse.Namespace]):
        read_weights(file)
        assert argparse.Namespace in allowed()


def test_a_head_of_another_size_is_dropped_with_a_line(tmp_path, caplog):
    there = build_network("mcunet-in0", 1000, seed=1).state_dict()
    here = build_network("mcunet-in0", 7, seed=2, weights=saved(tmp_path, there)).state_dict()
    drawn = build_network("mcunet-in0", 7, seed=2).state_dict()
    head = ["classifier.weight", "classifier.bias"]
    assert same(there, here, [name for name in there if name not in head])
    assert same(drawn, here, head)
    assert "its head (1000x192) is dropped, classifier (7x192) starts at random" in caplog.text
    assert len(caplog.records) == 1


def test_a_file_without_a_head_is_taken(tmp_path, caplog):
    state = {name: tensor for name, tensor in toy(1).state_dict().items() if not name.startswith("head.")}
    network = toy(2)
    load_weights(network, "head", saved(tmp_path, state))
    assert same(state, network.state_dict(), state)
    assert "no head in it" in caplog.text


def test_half_precision_and_missing_batch_counts_are_taken(tmp_path):
    state = {name: tensor for name, tensor in toy(1).state_dict().items() if "num_batches" not in name}
    network = toy(2)
    load_weights(network, "head", saved(tmp_path, {name: tensor.half() for name, tensor in state.items()}))
    assert network.stem.weight.dtype == torch.float64
    assert torch.equal(network.stem.weight, state["stem.weight"].half().double())


def test_another_network_is_refused_by_its_names(tmp_path, caplog):
    file = saved(tmp_path, torchvision.models.resnet18().state_dict())
    with pytest.raises(UserError) as caught:
        build_network("mcunet-in0", 7, weights=file)
    assert "weights '" in str(caught.value)
    assert "225 missing (first_conv.0.weight, " in str(caught.value)
    assert "122 unexpected (conv1.weight, " in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value)) < 1000
    assert not caplog.records


def test_shapes_and_kinds_that_differ_are_refused_and_nothing_is_loaded(tmp_path):
    state = toy(1).state_dict()
    state["stem.weight"] = torch.zeros(8, 3, 5, 5)
    state["norm1.bias"] = torch.zeros(8, dtype=torch.int8)
    network = toy(2)
    with pytest.raises(
        UserError,
        match=r"2 wrong \(stem\.weight has 8x3x5x5 where 8x3x3x3 is needed, norm1\.bias has 8 int8 where 8",
    ):
        load_weights(network, "head", saved(tmp_path, state))
    assert same(toy(2).state_dict(), network.state_dict())


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def bad_files(folder):
    state = toy(1).state_dict()
    whole = Path(saved(folder, state)).read_bytes()
    tensors = Path(saved(folder, state, "whole.safetensors")).read_bytes()
    yield "truncated.pth", whole[: len(whole) // 2]
    yield "short.pt", whole[:20]
    yield "empty.pth", b""
    yield "text.pth", b"not weights at all\n"
    yield "truncated.safetensors", tensors[: len(tensors) // 2]
    yield "header.safetensors", b"\xff" * 64
    yield "empty.safetensors", b""
    yield "malicious.pth", pickle.dumps({"state_dict": Malicious(folder / "executed")})
    yield "list.pth", Path(saved(folder, [1, 2])).read_bytes()
    yield "numbers.pth", Path(saved(folder, {"stem.weight": 3})).read_bytes()
    yield "nothing.pth", Path(saved(folder, {})).read_bytes()
    torch.save(toy(1), folder / "module.pth")
    yield "module.pth", (folder / "module.pth").read_bytes()
    yield "photo.jpg", b"\xff\xd8"


def test_files_that_hold_no_weights_are_one_clear_line(tmp_path):
    for name, content in bad_files(tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            read_weights(str(tmp_path / name))
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < 500, name
    assert not (tmp_path / "executed").exists()
    for missing in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(UserError, match="allowed: default, none, or the path of"):
            read_weights(str(missing))


def test_none_starts_a_pretrained_name_at_random(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("nothing may be downloaded")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", offline)
    plain = build_network("resnet18", 5, seed=3).state_dict()
    assert same(plain, build_network("pre_trained_resnet18", 5, seed=3, weights="none").state_dict())
    assert same(plain, build_network("resnet18", 5, seed=3, weights="none").state_dict())


def test_a_file_takes_the_place_of_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(
        torchvision.models._api.WeightsEnum, "get_state_dict", lambda *a, **k: pytest.fail("downloaded")
    )
    there = torchvision.models.resnet18().state_dict()
    here = build_network("pre_trained_resnet18", 5, seed=3, weights=saved(tmp_path, there)).state_dict()
    assert same(there, here, [name for name in there if not name.startswith("fc.")])
    assert same(build_network("resnet18", 5, seed=3).state_dict(), here, ["fc.weight", "fc.bias"])


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut off"])
def test_a_damaged_download_is_one_clear_line(content, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = tmp_path / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"resnet18-.*pth cannot be read .*remove it") as caught:
        build_network("pre_trained_resnet18", 5)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_starts_from_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = build_network("mcunet-in0", 10, seed=8)
    file = saved(tmp_path, start.state_dict(), "start.safetensors")
    head_only = [*FAST, "--ratio", "0", "--norm_mode", "frozen"]
    assert main(["train", *head_only, "--weights", file, "--run-dir", "run"]) == 0
    ended = safetensors.torch.load_file(tmp_path / "run" / "checkpoint" / "best.safetensors")
    body = [name for name in ended if not name.startswith("classifier.")]
    assert same(start.state_dict(), ended, body)
    # The same content elsewhere is the same run; another content is not.
    moved = saved(tmp_path, start.state_dict(), "moved.safetensors")
    assert main(["train", *head_only, "--weights", moved, "--run-dir", "run"]) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    other = saved(tmp_path, build_network("mcunet-in0", 10, seed=9).state_dict(), "other.safetensors")
    assert main(["train", *head_only, "--weights", other, "--run-dir", "run"]) == 2
    assert "holds another run (weights is sha256:" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["absent.pth", "defualt", "text.pth"])
def test_a_run_without_its_weights_ends_with_one_line(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_bytes(b"not weights at all\n")
    assert main(["train", *FAST, "--weights", weights]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]
