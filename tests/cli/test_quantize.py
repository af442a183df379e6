"""`neq quantize`: what is printed and written, and what is refused."""

import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from neq.cli import main
from neq.int8 import Int8Network, read_int8
from neq.int8.float_start import of_run
from neq.results.best_network import load_best
from neq.runs import load_run, read_summary

NAMED = ["--dataset", "digits", "--image_size", "16", "--images", "24", "--test-images", "40"]
TRAIN = [
    *("--dataset", "digits", "--n_epochs", "1", "--warmup_epochs", "0", "--base_batch_size", "128"),
    *("--norm_mode", "frozen", "--device", "cpu", "--ratio", "0.1"),
]


@pytest.fixture(scope="module")
def quantized(tiny_run, tmp_path_factory):
    """The int8 file of a run."""
    path = tmp_path_factory.mktemp("int8") / "net.safetensors"
    flags = ["--output", str(path), "--images", "64", "--test-images", "200"]
    assert main(["quantize", str(tiny_run), *flags]) == 0
    return path


@pytest.mark.slow
def test_the_network_of_a_run_keeps_its_classes_and_its_accuracy(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", str(tiny_run), "--output", "a.safetensors", "--images", "64"]) == 0
    out = capsys.readouterr().out
    assert "(chosen)" in out
    assert "neq train --net_name int8:a.safetensors" in out
    before, after = map(float, re.search(r"([\d.]+) % in floating point, ([\d.]+) % in int8", out).groups())
    found, best = read_int8(tmp_path / "a.safetensors"), load_best(tiny_run)
    assert found.classes == best.classes
    assert before == pytest.approx(read_summary(tiny_run)["test_top1"], abs=0.06)
    assert after == pytest.approx(before, abs=3)
    x = of_run(tiny_run).images("test", 40)
    with torch.no_grad():
        assert float(F.cosine_similarity(best.network(x), Int8Network(found)(x)).mean()) > 0.98
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.slow
def test_a_network_by_name_is_quantized_on_the_images_of_a_data_set(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    assert main(["quantize", "mcunet-in0", *NAMED, "--output", str(path)]) == 0
    assert "floating point" not in capsys.readouterr().out  # its classifier is new
    found = read_int8(path)
    assert (found.images.size, found.classes) == (16, ())
    assert len(found.convs) == 45
    assert main(["quantize", "mcunet-in0", *NAMED, "--output", str(path)]) == 2
    assert "--force replaces it" in capsys.readouterr().err


@pytest.mark.slow
def test_its_file_trains_resumes_and_is_loaded_without_it(quantized, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.safetensors"
    path.write_bytes(quantized.read_bytes())
    flags = ["train", "--net_name", f"int8:{path}", *TRAIN, "--run-dir", "run"]
    # A rate so small that no code changes: the classifier that the file has is where training starts.
    assert main([*flags, "--base_lr", "1e-9"]) == 0
    config = load_run(tmp_path / "run").config
    assert (config.net_config.net_name, config.net_config.weights) == ("int8:file", str(path))
    described = read_int8(path)
    assert config.data_provider.image_size == described.images.size
    assert config.data_provider.mean_std.mean == described.images.mean
    path.rename(tmp_path / "moved.safetensors")
    best = load_best(tmp_path / "run").network
    same = zip(best.describe().convs, described.convs, strict=True)
    assert all(torch.equal(a.weight, b.weight) for a, b in same)
    torch.testing.assert_close(best.classifier.weight, described.head.weight, rtol=0, atol=1e-6)
    capsys.readouterr()
    assert main(["quantize", "run", "--output", "again.safetensors"]) == 0
    assert "is an int8 network already" in capsys.readouterr().out
    assert read_int8(tmp_path / "again.safetensors").classes == described.classes
    assert main([*flags, "--base_lr", "1e-9", "--resume"]) == 2
    assert "net.safetensors' is no int8 network of neq" in capsys.readouterr().err
    (tmp_path / "moved.safetensors").rename(path)
    assert main([*flags, "--base_lr", "1e-9", "--resume"]) == 0
    assert "finished" in capsys.readouterr().out
    assert main([*flags, "--base_lr", "1e-9", "--weights", "none", "--dry-run"]) == 2
    assert "name two starts; give one" in capsys.readouterr().err


@pytest.mark.slow
def test_its_file_is_shown_among_the_networks(quantized, capsys):
    assert main(["networks", f"int8:{quantized}"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[1:4] == ["24", "45", "6,832"]


class Concatenated(nn.Module):
    """A network with an operation that int8 networks do not have."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(8, 10)

    def forward(self, x):
        x = self.conv(x)
        return self.fc(torch.cat((x, x), 1).mean((2, 3)))


REFUSED = {
    "an unknown network": (["mcunet-in9", *NAMED], "'mcunet-in9' is unknown; did you mean"),
    "no run": (["runs/absent", *NAMED], "'runs/absent' is unknown"),
    "an empty folder": ([".", "--images", "2"], "holds no run"),
    "no data set": (["mcunet-in0"], "--dataset is missing"),
    "an unknown data set": (["mcunet-in0", "--dataset", "digit"], "did you mean 'digits'"),
    "images that are missing": (
        ["mcunet-in0", "--dataset", "image_folder", "--root", "absent"],
        "'absent' is not a folder",
    ),
    "no image to hold out": (["mcunet-in0", *NAMED[:4], "--images", "1"], "1 image is too few"),
    "no images": (["mcunet-in0", *NAMED[:4], "--images", "0"], "a whole number from 1 on"),
    "weights of NaN": (["mcunet-in0", *NAMED, "--weights", "nan.pth"], "is not finite"),
    "weights of another network": (["mbv2", *NAMED, "--weights", "nan.pth"], "are of another network"),
    "another ending": (["mcunet-in0", *NAMED, "--output", "a.onnx"], "let it end in .safetensors"),
    "a folder that is missing": (["mcunet-in0", *NAMED, "--output", "x/a.safetensors"], "does not exist"),
    "a switch of training": (["mcunet-in0", *NAMED, "--overwrite"], "--force replaces the file"),
    "an unknown flag": (["mcunet-in0", *NAMED, "--imagse", "3"], "--imagse"),
    "a name twice": (["mcunet-in0", "--net_name", "mbv2", *NAMED], "name two networks"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "reason"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_one_line_and_nothing_is_written(flags, reason, tmp_path, monkeypatch, capsys):
    from neq.networks.build import build_network

    monkeypatch.chdir(tmp_path)
    if "nan.pth" in flags:
        state = build_network("mcunet-in0", 10).state_dict()
        state["blocks.3.depthwise.0.weight"][2] = float("nan")
        torch.save(state, tmp_path / "nan.pth")
    before = {*tmp_path.iterdir()}
    output = [] if "--output" in flags else ["--output", "a.safetensors"]
    assert main(["quantize", *flags, *output]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("neq: note")]
    assert reason in lines[-1]
    assert {*tmp_path.iterdir()} == before


def test_an_operation_that_int8_networks_do_not_have_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("neq.int8.float_start.build_network", lambda *given: Concatenated())
    assert main(["quantize", "mcunet-in0", *NAMED, "--output", str(tmp_path / "a.safetensors")]) == 2
    assert "Concatenated cannot be quantized: int8 networks have no operation cat" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_settings_of_a_run_are_not_given_again(tiny_run, tmp_path, capsys):
    flags = ["--output", str(tmp_path / "a.safetensors"), "--dataset", "digits"]
    assert main(["quantize", str(tiny_run), *flags]) == 2
    assert "is a run, which has its settings" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["absent.safetensors", "other.safetensors", "damaged.pkl", "text"])
def test_files_of_something_else_are_refused_as_networks(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    safetensors.torch.save_file({"a": torch.ones(2)}, "other.safetensors")
    (tmp_path / "damaged.pkl").write_bytes(b"damaged")
    assert main(["train", "--net_name", f"int8:{name}", "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ("is unknown" if name == "text" else "is no int8 network") in line
