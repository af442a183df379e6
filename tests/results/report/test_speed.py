"""The speed of inference, kept beside the run."""

import json
import shutil

import pytest
import safetensors.torch
import torch

from neq.results.best_network import load_best
from neq.results.report import speed as module
from neq.results.report.speed import Speed, VariantSpeed, measure, speed
from neq.results.report.variants import best_int8
from neq.runs.layout import SPEED


@pytest.fixture
def run(two_runs, tmp_path):
    return shutil.copytree(two_runs[0], tmp_path / "run")


@pytest.fixture
def quick(monkeypatch):
    """Few rounds: what is tested is what is measured, not how fast it is."""
    monkeypatch.setattr(module, "WARM_UPS", 1)
    monkeypatch.setattr(module, "ROUNDS", 3)
    monkeypatch.setattr(module, "CALIBRATED", 8)
    monkeypatch.setattr(module, "COMPARED", 40)


def test_it_is_read_and_not_measured_again(run, monkeypatch):
    monkeypatch.setattr(module, "measure", None)
    found = speed(run, pytest.fail)
    assert [each.name for each in found.variants][-1] == "onnxruntime int8 u8s8"
    assert found.variants[0].fps == (1000 / 6, 32_000 / 120)


@pytest.mark.parametrize("change", ["weights", "version", "damaged", "empty", "another"])
def test_it_is_measured_again_for_other_weights_and_damaged_files(run, monkeypatch, change):
    path = run / SPEED
    if change == "weights":
        weights = run / "checkpoint" / "best.safetensors"
        tensors = safetensors.torch.load_file(weights)
        tensors["classifier.bias"] += 1
        safetensors.torch.save_file(tensors, weights)
    elif change == "version":
        monkeypatch.setattr(module, "VERSION", 2)
    elif change == "another":
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "variants": [{"name": "x"}]}))
    else:
        path.write_text("{" if change == "damaged" else "[]")
    made = Speed(
        (VariantSpeed("torch fp32", 1, (1.0, 2.0), (1.0, 2.0), (3, 3), 1.0, None),), None, 1, True, {}
    )
    calls = []
    monkeypatch.setattr(module, "measure", lambda best: calls.append(best) or made)
    lines = []
    assert speed(run, lines.append) == made
    assert "--no-speed leaves it out" in lines[0]
    assert speed(run, pytest.fail) == made
    assert len(calls) == 1


def test_torch_alone_where_onnxruntime_is_missing(tiny_run, quick, monkeypatch):
    monkeypatch.setattr(module, "missing_packages", lambda: ["onnxruntime"])
    found = measure(load_best(tiny_run))
    (only,) = found.variants
    assert (only.name, only.agreement, only.rounds) == ("torch fp32", 1.0, (3, 3))
    assert only.milliseconds >= only.least > (0, 0)
    assert found.int8 is None
    assert found.missing == "onnxruntime not installed; pip install 'neq[onnx]'"
    assert found.environment["threads"] == torch.get_num_threads()


@pytest.mark.slow
def test_every_variant_of_a_network(tiny_run, quick):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    found = measure(load_best(tiny_run))
    kinds = ("fp32", "fp16", "int8 dynamic", "int8 u8s8", "int8 s8s8")
    assert [each.name for each in found.variants] == [
        "torch fp32",
        *(f"onnxruntime {kind}" for kind in kinds),
    ]
    by_name = {each.name: each for each in found.variants}
    fp32 = by_name["onnxruntime fp32"]
    assert fp32.agreement == 1.0
    assert by_name["onnxruntime fp16"].file_bytes < 0.6 * fp32.file_bytes
    assert by_name["onnxruntime int8 u8s8"].file_bytes < 0.5 * fp32.file_bytes
    assert found.int8 in ("onnxruntime int8 u8s8", "onnxruntime int8 s8s8")
    assert found.real
    assert 30 < found.images <= 40
    assert all(0 <= each.accuracy <= 1 for each in found.variants)


def test_the_int8_to_use_is_a_static_one_by_agreement_then_by_time():
    names = ["onnxruntime int8 dynamic", "onnxruntime int8 u8s8", "onnxruntime int8 s8s8"]
    assert best_int8(names, [1.0, 0.91, 0.95], [1, 2, 9]) == names[2]
    assert best_int8(names, [1.0, 0.95, 0.95], [1, 2, 9]) == names[1]
    assert best_int8(names[:1], [1.0], [1]) is None
