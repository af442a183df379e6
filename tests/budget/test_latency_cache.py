"""A device is measured once for each kind of step."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from neq.budget import CostModel, Latency, StepSpec, kept_latency, latency_cache
from neq.budget.latency_cache import kept_profile
from neq.networks.neurons import neuron_table
from tests.toys import SHAPE, toy

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch):
    """How often a device was measured."""
    found = []

    def calibrate(model, device):
        found.append(model.spec)
        return Latency({"step": float(len(found))}, 0.0)

    monkeypatch.setattr(latency_cache, "calibrate", calibrate)
    return found


def model_of(network=None, unit="neuron", **settings):
    network = network or toy(0, torch.float32)
    spec = StepSpec((settings.pop("images", 4),), SHAPE, **settings)
    return CostModel(network, neuron_table(network, SHAPE, unit=unit), spec)


def test_the_second_time_nothing_is_measured(tmp_path, measured):
    folder = tmp_path / "not" / "there"
    first = kept_latency(model_of(), CPU, folder)
    assert kept_latency(model_of(toy(1, torch.float32)), CPU, folder) == first
    assert kept_latency(model_of(bias_layers=("pointwise",)), CPU, folder) == first
    assert measured == [model_of().spec]
    assert len(list(folder.glob("*.json"))) == 1


def test_another_step_network_or_device_is_measured_anew(tmp_path, measured, monkeypatch):
    def measures(*more, **settings):
        count = len(measured)
        kept_latency(model_of(**settings), CPU, tmp_path, *more)
        return len(measured) - count

    assert measures() == 1
    for settings in (
        {"images": 8},
        {"norm_mode": "train"},
        {"optimizer": "adam"},
        {"precision": "bf16"},
        {"unit": "input_channel"},
        {"network": toy(0, torch.float32, classes=7)},
    ):
        assert measures(**settings) == 1, settings
        assert measures(**settings) == 0, settings
    assert measures("tight") == 1
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.0")
        assert measures() == 1
    with monkeypatch.context() as patch:
        patch.setattr(latency_cache, "cpu_model", lambda: "another")
        assert measures() == 1
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 64)
        assert measures() == 1
    assert measures() == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"7", b"{}", b'{"nanoseconds": {"step": -1.0}, "error": 0.0}']
)
def test_a_damaged_file_is_measured_anew(tmp_path, measured, content):
    kept_latency(model_of(), CPU, tmp_path)
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(content)
    assert kept_latency(model_of(), CPU, tmp_path).nanoseconds == {"step": 2.0}
    assert json.loads(path.read_text())["nanoseconds"] == {"step": 2.0}
    assert len(measured) == 2


def test_runs_that_start_together_measure_once(tmp_path, measured, monkeypatch):
    models = [model_of() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda model: kept_latency(model, CPU, tmp_path), models))
    assert found == [Latency({"step": 1.0}, 0.0)] * 3
    assert len(measured) == 1


def test_where_nothing_can_be_kept_every_call_measures(tmp_path, measured):
    folder = tmp_path / "file"
    folder.write_text("")
    for count in (1, 2):
        assert kept_latency(model_of(), CPU, folder).nanoseconds == {"step": float(count)}


@pytest.mark.slow
def test_a_kept_profile_is_that_of_the_step(tmp_path, monkeypatch):
    everything = torch.ones(len(model_of().table), dtype=torch.bool)
    few = torch.arange(len(everything)) % 3 == 0
    # What torch makes on first use counts in the first profile of a process: 2 KiB.
    model_of(norm_mode="train").profile({})
    for chosen in (everything, few):
        for settings in (
            {"norm_mode": "train"},
            {"norm_mode": "frozen", "saved_precision": "bf16"},
            {"norm_mode": "train", "ghost_batch": 2},
        ):
            made = model_of(**settings)
            expected = made.profile(made.table.selection(chosen))
            assert kept_profile(model_of(**settings), chosen, tmp_path) == expected
            with monkeypatch.context() as patch:  # another batch and group read the same file
                patch.setattr(CostModel, "profile", lambda *given: pytest.fail("profiled again"))
                ghost = settings.get("ghost_batch") and {"ghost_batch": 4}
                other = kept_profile(model_of(images=16, **(settings | (ghost or {}))), chosen, tmp_path)
            assert replace(other, ghost_batch=expected.ghost_batch) == expected
    assert len(list(tmp_path.glob("*.json"))) == 6


def test_a_damaged_profile_is_made_anew(tmp_path):
    chosen, model = torch.ones(len(model_of().table), dtype=torch.bool), model_of()
    model.profile({})
    expected = kept_profile(model, chosen, tmp_path)
    (path,) = tmp_path.glob("*.json")
    for content in ("{", "[]", '{"units": [], "names": 3}', ""):
        path.write_text(content)
        assert kept_profile(model, chosen, tmp_path) == expected
