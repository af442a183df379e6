"""`neq adapt`: a run like any other, and what is refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from neq.cli import main
from neq.cli.adapt import _transfer
from neq.runs import read_metrics, read_summary

CLASSES = ("cat", "dog", "elk")
FAST = ["--net_name", "mcunet-in0", "--weights", "none", "--image_size", "24", "--n_epochs", "1"]
FAST += ["--base_batch_size", "8", "--device", "cpu", "--augmentation", "none", "--run-dir", "run"]


def domain(folder, seed, classes=CLASSES):
    """A folder of random images, 8 to train on and 3 to test on of each class."""
    draw = np.random.default_rng(seed)
    for split, count in (("train", 8), ("test", 3)):
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return str(folder)


@pytest.fixture
def domains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return ["--source", domain(tmp_path / "photo", 0), "--target", domain(tmp_path / "sketch", 1)]


def refused(capsys, *arguments):
    """The one line of a command that is refused."""
    assert main(["adapt", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_run_is_recorded_and_found_finished(domains, tmp_path, capsys):
    assert main(["adapt", *domains, *FAST, "--method", "dann"]) == 0
    identity = json.loads((tmp_path / "run" / "identity.json").read_text())
    assert (identity["objective"], identity["transfer"]) == ("adapt_dann", "photo-sketch")
    assert not any("root" in name for name in identity)
    summary = read_summary(tmp_path / "run")
    assert 0 <= summary["test_top1_all"] <= 100
    (row,) = read_metrics(tmp_path / "run")
    assert row["test"]["test/top1_all"] == summary["test_top1_all"]
    assert summary["val_top1"] is None
    capsys.readouterr()
    assert main(["adapt", *domains, *FAST, "--method", "dann"]) == 0
    assert "holds this run, finished" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_writes_nothing(domains, tmp_path, capsys):
    assert main(["adapt", *domains, *FAST, "--select_by", "im", "--dry-run"]) == 0
    assert "adapt_mcc" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_wrong_input_is_refused_in_one_line(domains, tmp_path, capsys):
    source, target = domains[1], domains[3]
    assert "arguments are required: --source" in refused(capsys, "--target", target)
    assert "method 'mmc' is unknown" in refused(capsys, *domains, "--method", "mmc")
    assert "neither a folder nor a data set" in refused(capsys, "--source", source, "--target", "nowhere")
    assert "give --method" in refused(capsys, *domains, "--objective", "tent")
    assert "--target_root is not allowed" in refused(capsys, *domains, "--target_root", "x")
    assert "give two domains" in refused(capsys, "--source", source, "--target", source, *FAST)
    domain(tmp_path / "webcam" / "images", 2)
    found = refused(capsys, "--source", str(tmp_path / "webcam"), "--target", target, *FAST)
    assert "1 class(es), images; at least 2 are needed" in found
    other = domain(tmp_path / "other", 3, ("cat", "dog", "emu"))
    found = refused(capsys, "--source", source, "--target", other, *FAST)
    assert "class 'elk' (one of 1)" in found
    assert not (tmp_path / "run").exists()


def test_a_transfer_is_named_by_the_folders_that_tell_its_domains_apart():
    assert _transfer("office/amazon/images", "office/webcam/images/") == "amazon-webcam"
    assert _transfer("pacs/photo", "pacs/sketch") == "photo-sketch"
    assert _transfer("mnist", "usps") == "mnist-usps"
    assert _transfer("a.npz", "other/a.npz") != "a.npz-a.npz"
    assert _transfer("photo", "photo") == "photo-photo"
