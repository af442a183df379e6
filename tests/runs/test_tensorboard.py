"""Runs in TensorBoard's event files, read back by its own reader."""

import json
import shutil
from contextlib import suppress

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neq.cli import main
from neq.experiment.run import StopEarly
from neq.runs import read_metrics
from neq.runs.tensorboard import TensorBoardMirror, scalars
from neq.training import EpochReport

CONFIG = "project_name: toys\n"


def curves(folder):
    """Name -> (step, value) of every scalar."""
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return {
        name: [(event.step, pytest.approx(event.value)) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }


@pytest.fixture
def folder(tmp_path):
    """A record with two epochs."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    lines = [{"epochs": epoch, "train": {"top1": 10.0 * epoch}, "name": "x"} for epoch in range(2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_numbers_are_found_by_their_path():
    metrics = {"epochs": 3, "valid": {"val/best": 97.5}, "Budget": {"used": 7, "unit": "bytes", "left": None}}
    assert dict(scalars(metrics)) == {"epochs": 3, "valid/val/best": 97.5, "Budget/used": 7}


def test_the_epochs_of_the_record_come_first_and_none_comes_twice(folder):
    report = EpochReport(2, {"epochs": 2, "train": {"top1": 50.0}}, None, None)
    for _ in range(2):  # the second one is that of a run that is resumed from two epochs
        with suppress(StopEarly), TensorBoardMirror(folder) as mirror:
            mirror.epoch(report)
            raise StopEarly
        assert curves(folder)["train/top1"] == [(0, 0.0), (1, 10.0), (2, 50.0)]


def test_a_run_and_a_sync_write_the_same_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = ["--image_size", "16", "--base_batch_size", "512", "--n_epochs", "1", "--warmup_epochs", "1"]
    assert main(["train", *size, "--tensorboard", "1", "--run_dir", "run"]) == 0
    folder = tmp_path / "run"
    expected = [dict(scalars(line)) for line in read_metrics(folder)]
    found = curves(folder)
    assert found.keys() == {name for line in expected for name in line}
    for name in found:
        assert found[name] == [(step, line[name]) for step, line in enumerate(expected) if name in line]
    shutil.rmtree(folder / "tensorboard")
    assert main(["train", *size, "--tensorboard", "1", "--run_dir", "run"]) == 0  # finished before
    assert curves(folder).keys() == found.keys()
    assert main(["sync", "--tensorboard", "run"]) == 0
    assert curves(folder) == {
        name: [(step, line[name]) for step, line in enumerate(expected) if name in line] for name in found
    }


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neq.runs.tensorboard.find_spec", lambda name: None)
    assert main(["train", "--image_size", "16", "--tensorboard", "1", "--run_dir", "run"]) == 2
    assert "pip install 'neq[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
