"""The script that compares two revisions by their runs notices what it should."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.identical_runs import RUNS, compare_runs, main

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_a_tree_is_identical_with_itself(capsys, monkeypatch):
    train, settings = RUNS["random"]
    monkeypatch.setitem(RUNS, "random", (train, settings | {"image_size": 16, "base_batch_size": 128}))
    assert main(["--against", str(ROOT), "--only", "random"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "identical"


@pytest.fixture
def copy(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content) + "\n")


def test_what_a_machine_takes_is_not_compared_and_a_new_metric_is_listed(tiny_run, copy):
    edit(copy / "summary.json", lambda it: it.update(step_seconds=99, peak_memory_bytes=1, test_top5=50))
    edit(copy / "metrics.jsonl", lambda it: it.update(step_seconds=99))
    assert compare_runs(copy, tiny_run) == ([], ["summary: test_top5"])


def test_a_metric_that_changed_or_is_gone_is_a_difference(tiny_run, copy):
    edit(copy / "summary.json", lambda it: it.pop("val_loss"))
    edit(copy / "metrics.jsonl", lambda it: it["train"].update({"train/loss": 1.5}))
    differences, _ = compare_runs(copy, tiny_run)
    assert len(differences) == 2
    assert differences[0].startswith("epoch 0: train: train/loss: 1.5 instead of ")
    assert differences[1] == "summary: val_loss is missing"


def test_one_bit_of_a_weight_and_one_neuron_are_differences(tiny_run, copy):
    best = copy / "checkpoint" / "best.safetensors"
    weights = load_file(best)
    save_file(weights, best, metadata={"format": "other"})
    assert compare_runs(copy, tiny_run)[0] == []
    first = next(iter(weights.values())).reshape(-1)
    first.view(np.uint8)[0] ^= 1
    save_file(weights, best)
    chosen = copy / "selection" / "00000.npz"
    arrays = dict(np.load(chosen))
    key = min(arrays, key=lambda name: arrays[name].size == 0)
    arrays[key].reshape(-1).view(np.uint8)[0] ^= 1
    np.savez(chosen, **arrays)
    assert compare_runs(copy, tiny_run)[0] == [f"selection/00000.npz: {key}", "best.safetensors"]


def test_another_identity_is_a_difference(tiny_run, copy):
    edit(copy / "identity.json", lambda it: it.update(manual_seed=5))
    assert compare_runs(copy, tiny_run)[0] == ["identity"]


def test_an_unknown_revision_is_one_line_and_code_2(capsys):
    assert main(["--against", "no-such-revision"]) == 2
    assert "revision 'no-such-revision' cannot be checked out" in capsys.readouterr().err
