"""Runs of int8 networks: from the command line to the best network, resumed, with and without QAS."""

import json
import signal
from contextlib import nullcontext

import pytest
import safetensors.torch
import torch

from neq.cli import main
from neq.config import resolve
from neq.experiment.run import run_training
from neq.int8 import Int8Conv, attach
from neq.networks.build import build_network
from neq.results import best_network
from neq.training import Stop, load_checkpoint
from neq.training import optimizer as optimizer_module

RUN = [
    *("train", "--net_name", "int8:mcunet-in1", "--weights", "none", "--dataset", "digits"),
    *("--image_size", "16", "--warmup_epochs", "0", "--base_batch_size", "128"),
    *("--device", "cpu", "--norm_mode", "frozen", "--base_lr", "1"),
]
SCHEME = ("--scheme", "mcunet-in1_scheme_1", "--neuron_selection", "SU", "--initialization", "SU")


def trained(folder, *flags):
    """The best weights of a run, and its metrics."""
    epochs = () if "--n_epochs" in flags else ("--n_epochs", "1")
    assert main([*RUN, *epochs, *flags, "--run-dir", str(folder)]) == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return safetensors.torch.load_file(folder / "checkpoint" / "best.safetensors"), json.loads(lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_a_scheme_trains_what_it_lists_and_the_best_network_loads(unit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights, _ = trained(tmp_path / "run", *SCHEME, "--unit", unit)
    network = build_network("int8:mcunet-in1", 10, weights="none")
    start = network.state_dict()
    moved = {name for name in weights if not torch.equal(weights[name], start[name])}
    convs = [name for name, module in network.named_modules() if isinstance(module, Int8Conv)]
    assert {name for name in moved if name.endswith(".weight")} == {
        "classifier.weight",
        *(f"{convs[index]}.weight" for index in (24, 27, 30)),
    }
    assert {name for name in moved if name.endswith(".bias")} <= {
        "classifier.bias",
        *(f"{conv}.bias" for conv in convs[-20:]),
    }
    best = best_network.load_best(tmp_path / "run")
    assert all(torch.equal(best.network.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.slow
def test_the_setting_decides_whether_gradients_are_scaled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    def attached(optimizer, plan, qas):
        seen.append(qas)
        attach(optimizer, plan, qas)

    monkeypatch.setattr("neq.int8.training.attach", attached)
    weights = {flag: trained(tmp_path / f"qas{flag}", *SCHEME, "--qas", flag)[0] for flag in "01"}
    assert seen == [False, True]
    changed = {flag: sum(_changed(found).values()) for flag, found in weights.items()}
    assert changed["0"] == 0 < changed["1"]
    assert all(
        float(found[name].abs().max()) <= 127 for found in weights.values() for name in _changed(found)
    )
    assert optimizer_module._step_rules


def _changed(weights):
    """How many codes of each conv's weight differ from those of the random start."""
    start = build_network("int8:mcunet-in1", 10, weights="none").state_dict()
    names = [name for name in weights if name.endswith(".weight") and not name.startswith("classifier")]
    return {name: int((weights[name].round() != start[name].round()).sum()) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["velocity", "random", "auto", "full"])
def test_policies_that_nobody_published_run(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ("--n_epochs", "2", "--initialization", "random", "--neuron_selection", policy)
    weights, metrics = trained(tmp_path / "run", *flags, "--ratio", "0.1")
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert metrics["epochs"] == 1


@pytest.mark.slow
def test_the_cost_of_a_scheme_is_shown_beside_its_published_memory(capsys):
    flags = ["--net_name", "int8:mcunet-in1", "--weights", "none", "--scheme", "mcunet-in1_scheme_3"]
    flags += ["--unit", "input_channel", "--neuron_selection", "SU", "--initialization", "SU"]
    flags += ["--norm_mode", "frozen", "--base_batch_size", "1"]
    assert main(["cost", *flags]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "published model" in line)
    mine = int(line.split("│")[2].replace(",", ""))
    assert mine / 1024 == pytest.approx(99.8, abs=0.05)


class StopIn:
    """Asks a run to stop after a step of its second epoch."""

    def __init__(self, stop):
        self.stop = stop

    def step(self, epoch, step, steps):
        if (epoch, step) == (1, 2):
            self.stop.number = signal.SIGINT

    def epoch(self, report):
        pass

    def finish(self, summary):
        pass


@pytest.mark.slow
def test_a_run_that_is_stopped_between_two_codes_resumes_bit_identical(tmp_path):
    settings = {
        **{"net_name": "int8:mbv2-w0.35", "weights": "none", "dataset": "digits", "image_size": 16},
        **{"n_epochs": 2, "warmup_epochs": 0, "base_batch_size": 256, "base_lr": 1.0, "momentum": 0.9},
        **{"scheme": "mbv2-w0.35_scheme_1", "neuron_selection": "SU", "initialization": "SU"},
        **{"unit": "input_channel", "norm_mode": "frozen", "device": "cpu"},
    }
    states = {}
    for name in ("whole", "stopped"):
        config = resolve({}, {**settings, "run_dir": str(tmp_path / name)}).config
        if name == "stopped":
            stop = Stop()
            with pytest.raises(KeyboardInterrupt):
                run_training(config, trackers=[StopIn(stop)], stopping=lambda stop=stop: nullcontext(stop))
            config = config.model_copy(update={"resume": True})
        folder = run_training(config)
        states[name] = load_checkpoint(folder / "checkpoint" / "last.pt")["network"]
    assert states["whole"].keys() == states["stopped"].keys()
    assert all(torch.equal(states["whole"][key], value) for key, value in states["stopped"].items())
    between = [key for key, value in states["whole"].items() if (value != value.round()).any()]
    assert any(key.startswith("blocks.") and key.endswith(".weight") for key in between)
