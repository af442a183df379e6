import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neq.cli import main
from neq.config import dataset, read_yaml, resolve
from neq.data import open_data
from neq.results import onnx_file
from neq.results.best_network import class_names, load_best, sample_images
from neq.runs import RecordHeader, StoredRun

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """An exported file, and what was printed: by a process of its own, whose output is all there is."""
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    command = [sys.executable, "-m", "neq", "export", str(tiny_run), "--onnx", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path, done


@pytest.fixture
def quick(exported, monkeypatch):
    """Exporting takes seconds: here it returns what the run's network was exported to."""

    def again(network, images, net_name):
        model = onnx.load(exported[0])
        del model.metadata_props[:]
        return model

    monkeypatch.setattr(onnx_file, "_exported", again)


def copy_of(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy"))


def change_weights(folder, **tensors):
    import safetensors.torch

    path = folder / "checkpoint" / "best.safetensors"
    safetensors.torch.save_file({**safetensors.torch.load_file(path), **tensors}, path)


def test_the_file_gives_the_recorded_accuracy(tiny_run, exported):
    """All test images through onnxruntime, in batches that it was not exported with."""
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    config = resolve(read_yaml(tiny_run / "config.yaml"), {}).config
    hits, seen, doubtful = 0, 0, 0
    with open_data(config.data_provider, dataset("digits"), config.manual_seed) as data:
        for images, labels in data.eval_batches("test"):
            (logits,) = session.run(["logits"], {"images": images.numpy()})
            hits += int((logits.argmax(1) == labels.numpy()).sum())
            second, first = np.sort(logits, axis=1)[:, -2:].T
            doubtful += int((first - second < 1e-3).sum())
            seen += len(labels)
    recorded = json.loads((tiny_run / "summary.json").read_text())["test_top1"]
    assert abs(hits - recorded / 100 * seen) <= doubtful + 1e-6  # on a boundary rounding decides
    assert doubtful < 0.1 * seen


def test_what_is_printed_is_three_lines_and_no_more(exported):
    path, done = exported
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert lines[0].startswith(f"{path}: mcunet-in0, ")
    assert lines[1] == "images [batch, 3, 24, 24] -> logits [batch, 10]"
    assert lines[2].startswith("largest difference from torch ")
    assert lines[2].endswith("on 16 test images of digits")
    assert len(lines) == 3


def test_the_batch_is_free_and_the_file_says_what_its_input_is(exported):
    model = onnx.load(exported[0])
    onnx.checker.check_model(model, full_check=True)
    batch, *rest = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "batch"
    assert [dim.dim_value for dim in rest] == [3, 24, 24]
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["classes"]) == [str(number) for number in range(10)]
    assert json.loads(said["mean"]) == [0.305] * 3
    assert json.loads(said["std"]) == [0.376] * 3
    assert said["image_size"] == "24"
    assert "24, 24" in said["resizing"]


def test_another_image_size(tiny_run, tmp_path, capsys):
    path = tmp_path / "net.onnx"
    assert main(["export", str(tiny_run), "--onnx", str(path), "--image-size", "40"]) == 0
    assert "images [batch, 3, 40, 40]" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        expected = load_best(tiny_run).network(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-3)


def test_a_file_that_computes_something_else_is_refused_and_not_left(tiny_run, quick, tmp_path, capsys):
    folder = copy_of(tiny_run, tmp_path)
    bias = load_best(folder).network.classifier.bias.detach().clone()
    bias[3] += 0.1  # what is exported is the network as it was before
    change_weights(folder, **{"classifier.bias": bias})
    assert main(["export", str(folder), "--onnx", str(tmp_path / "net.onnx")]) == 2
    err = capsys.readouterr().err
    assert "gives other outputs than torch: they differ by 0.1" in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_outputs_that_are_no_numbers_do_not_agree(tiny_run, quick, tmp_path, capsys):
    folder = copy_of(tiny_run, tmp_path)
    change_weights(folder, **{"classifier.bias": torch.full((10,), float("nan"))})
    assert main(["export", str(folder), "--onnx", str(tmp_path / "net.onnx")]) == 2
    assert "differ by nan" in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_without_the_data_random_images_are_taken_and_named(tiny_run, quick, tmp_path, capsys):
    folder = copy_of(tiny_run, tmp_path)
    text = (folder / "config.yaml").read_text().replace("dataset: digits", "dataset: mnist")
    (folder / "config.yaml").write_text(text.replace("root: null", f"root: {tmp_path / 'nowhere'}"))
    assert main(["export", str(folder), "--onnx", str(tmp_path / "net.onnx")]) == 0
    assert "on 16 random images: the data set is not at hand" in capsys.readouterr().out
    assert not (tmp_path / "nowhere").exists()  # nothing was downloaded


def test_sample_images_are_those_that_the_run_was_tested_on(tiny_run):
    best = load_best(tiny_run)
    with open_data(best.config.data_provider, dataset("digits"), 0) as data:
        everything = torch.cat([images for images, _ in data.eval_batches("test")])
    sampled = sample_images(best, 16)
    assert sampled.shape == (16, 3, 24, 24)
    found = [(everything == image).flatten(1).all(1).any() for image in sampled]
    assert all(found)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_way_out(tiny_run, tmp_path, capsys, monkeypatch, package):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    assert main(["export", str(tiny_run), "--onnx", str(tmp_path / "net.onnx")]) == 2
    assert capsys.readouterr().err == (
        f"neq: ONNX files need {package}; pip install 'neq[onnx]' brings them\n"
    )


def test_a_file_that_is_there_stays_unless_forced(tiny_run, exported, quick, tmp_path, capsys):
    path = tmp_path / "net.onnx"
    path.write_text("mine")
    assert main(["export", str(tiny_run), "--onnx", str(path)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["export", str(tiny_run), "--onnx", str(path), "--force"]) == 0
    assert path.stat().st_size == exported[0].stat().st_size


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["{run}"], "required: --onnx"),
        (["{run}", "--onnx", "{tmp}/net.txt"], "let it end in .onnx"),
        (["{run}", "--onnx", "{tmp}/no/net.onnx"], "does not exist; make it first"),
        (["{tmp}", "--onnx", "{tmp}/net.onnx"], "holds no run"),
        (["{run}", "--onnx", "{tmp}/net.onnx", "--image-size", "7"], "8 to 4096"),
        (["{run}", "--onnx", "{tmp}/net.onnx", "--image-size", "big"], "invalid int value"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(tiny_run, tmp_path, capsys, arguments, line):
    given = [part.format(run=tiny_run, tmp=tmp_path) for part in arguments]
    assert main(["export", *given]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_finished_epoch_and_one_with_damaged_weights(tiny_run, tmp_path, capsys):
    folder = copy_of(tiny_run, tmp_path)
    weights = folder / "checkpoint" / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(["export", str(folder), "--onnx", str(tmp_path / "net.onnx")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    weights.unlink()
    assert main(["export", str(folder), "--onnx", str(tmp_path / "net.onnx")]) == 2
    assert "no checkpoint/best.safetensors yet" in capsys.readouterr().err


def test_class_names_are_the_recorded_ones(tmp_path, tiny_run):
    assert json.loads((tiny_run / "classes.json").read_text()) == [str(number) for number in range(10)]
    assert class_names(StoredRun(tmp_path, RecordHeader()), 3) == ("0", "1", "2")
    (tmp_path / "classes.json").write_text('["cat", "=dog", "\\udcff"]')
    assert class_names(StoredRun(tmp_path, RecordHeader()), 3) == ("cat", "=dog", "\udcff")
    with pytest.raises(ValueError, match="does not hold the 2 names"):
        class_names(StoredRun(tmp_path, RecordHeader()), 2)
