import re

import pytest

from neq.budget import Latency
from neq.cli import main


def numbers(out, row):
    (line,) = [line for line in out.splitlines() if f"│ {row} " in line]
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]+(?= │)", line)[:2]]


@pytest.mark.slow
def test_the_cost_of_a_scheme_is_told_without_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    flags = [
        "--net_name",
        "mbv2",
        "--image_size",
        "64",
        "--base_batch_size",
        "4",
        "--scheme",
        "mbv2_scheme_1",
    ]
    assert main(["cost", *flags, "--norm_mode", "frozen"]) == 0
    out = capsys.readouterr().out
    assert numbers(out, "updated parameters") == [192312, 2189760]
    assert numbers(out, "MACs forward")[0] == numbers(out, "MACs forward")[1]
    saved = numbers(out, "bytes kept for backward")
    assert 0 < saved[0] < 0.05 * saved[1]
    memory = numbers(out, "bytes of training memory")
    assert memory[0] > saved[0]
    assert re.search(r"^features\.1\d\.conv\S* +(\d+)/\1 ", out, re.M)
    assert not list(tmp_path.iterdir())


def test_without_a_scheme_the_first_epochs_policy_is_counted(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", "--ratio", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "random, norm mode frontier, sgd with momentum" in out
    updated, total = numbers(out, "updated parameters")
    assert total == 543176
    assert 54317 - 9 < updated <= 54318


def test_bad_flags_are_refused(capsys):
    assert main(["cost", "--net_name", "mbv3"]) == 2
    assert "did you mean 'mbv2'" in capsys.readouterr().err


def test_a_scheme_alone_is_shown_on_its_own_network(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", "--scheme", "mbv2-w0.35_scheme_2", "--base_batch_size", "2"]) == 0
    out = capsys.readouterr().out
    assert "mbv2-w0.35, 128 px, batch 2" in out
    assert "SU, norm mode" in out
    assert numbers(out, "updated parameters") == [39072, 238688]


def test_a_scheme_lends_another_network_its_ratio(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", "--scheme", "mcunet-in1_scheme_2", "--net_name", "mcunet-in0"]) == 0
    out = capsys.readouterr().out
    assert "is of mcunet-in1: mcunet-in0 uses its ratio" in out
    assert "random, norm mode" in out
    assert 0 <= round(29440 / 463216 * 543176) - numbers(out, "updated parameters")[0] < 9


@pytest.mark.slow
def test_the_policy_that_was_asked_for_is_counted(capsys, monkeypatch):
    """Fault F4: where the run has lists, SU was counted whichever policy was given."""
    monkeypatch.setenv("COLUMNS", "200")
    scheme = ["--scheme", "mcunet-in1_scheme_1", "--image_size", "48"]
    for policy in ("random", "full"):
        assert main(["cost", *scheme, "--neuron_selection", policy, "--initialization", policy]) == 0
        assert f"{policy}, norm mode" in capsys.readouterr().out


@pytest.mark.slow
def test_a_policy_that_needs_measurements_is_counted_by_its_first_epoch(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["cost", "--ratio", "0.1", "--neuron_selection", "taylor"]) == 0
    assert "random, norm mode" in capsys.readouterr().out


@pytest.mark.slow
def test_a_budget_in_time_shows_the_predicted_step(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    device = Latency({"step": 8e6, "layers_passed": 1e5}, 0.07)
    monkeypatch.setattr("neq.training.step_times.kept_latency", lambda *_: device)
    assert main(["cost", "--budget", "9ms", "--norm_mode", "frozen"]) == 0
    out = capsys.readouterr().out
    used = re.search(r"frozen, sgd with momentum, fp32: ([89]\.\d{3}) ms of a budget of 9\.000 ms", out)
    assert used is not None
    assert 8 < float(used[1]) <= 9
    assert "step time: 8.000 ms with nothing chosen" in out
    assert "predicted from steps measured on this device, all of them within 7%" in out
    assert main(["cost", "--budget", "5ms"]) == 2
    assert "a budget of 5.000 ms is less than what always runs" in capsys.readouterr().err
