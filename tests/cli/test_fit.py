"""`neq fit`: photos in, a network out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from neq.cli import main
from neq.experiment import time_limit
from neq.networks.build import build_network
from neq.runs import load_run, read_metrics, read_summary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Photos of two shades without splits, weights that stand for trained ones, and a short run."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    for index, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            grey = torch.randint(0, 100, (20, 24, 3), generator=generator) + 140 * index
            path = tmp_path / "photos" / name / f"{number}.png"
            Image.fromarray(grey.to(torch.uint8).numpy()).save(path)
    torch.save(build_network("mcunet-in0", 2).state_dict(), "weights.pth")
    net = ["--net_name=mcunet-in0", "--weights=weights.pth", "--image_size=24", "--base_batch_size=8"]
    return ["fit", "photos", *net, "--n_epochs=2"]


@pytest.mark.slow
def test_a_folder_becomes_a_network_that_predicts(flags, tmp_path, capsys):
    flags = [flag.replace("--base_batch_size=8", "--base_batch_size=16") for flag in flags]
    assert main([*flags, "--memory", "300KB"]) == 0
    out = capsys.readouterr().out
    folder = Path("fitted/photos")
    summary, config = read_summary(folder), load_run(folder).config
    assert summary["budget"] == 300_000
    assert summary["selected_parameters_max"] > 0
    assert summary["budget_used_max"] <= 300_000
    assert (config.NEq_config.neuron_selection, config.run_config.base_lr) == ("auto", "auto")
    assert f"{summary['test_top1']:.2f} %" in out
    command = out.splitlines()[-1].split()
    assert command == ["python", "fitted/photos/network/predict.py", "IMAGE", "..."]
    image = str(tmp_path / "photos" / "dark" / "0.png")
    done = subprocess.run(
        [sys.executable, str(tmp_path / command[1]), image], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{image}: ")
    assert done.stdout.split()[1] in ("dark", "light")
    before = (folder / "summary.json").read_bytes()
    assert main([*flags, "--memory", "300KB"]) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    assert (folder / "summary.json").read_bytes() == before
    assert main([*flags, "--memory", "200KB"]) == 2  # another run
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (folder / "summary.json").read_bytes() == before


@pytest.mark.slow
def test_a_time_limits_the_epochs_and_a_slow_device_ends_the_run(flags, monkeypatch, capsys):
    flags = [*flags[:-1], "--base_lr=0.01", "--time=90s"]
    durations = time_limit.Durations(start=1, epoch=20)
    monkeypatch.setattr(time_limit, "measure_durations", lambda *_: durations)
    assert main(flags) == 0
    assert "4 of at most 16 epochs" in (first := capsys.readouterr().out)
    assert "4 of 4" not in first
    assert len(read_metrics(Path("fitted/photos"))) == 4
    # A run that was begun keeps its epochs, and one that takes too long ends with what it has.
    durations = None
    assert main(flags) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    durations = time_limit.Durations(start=1, epoch=20)
    with monkeypatch.context() as patch:
        patch.setattr(time_limit, "Deadline", lambda seconds, kind=time_limit.Deadline: kind(0))
        assert main([*flags, "--out=slow"]) == 0
    assert "the time is over after 1 of 4 epochs" in " ".join(capsys.readouterr().out.split())
    assert Path("slow/network/best.safetensors").exists()
    assert main([*flags, "--out=slow"]) == 0
    assert len(read_metrics(Path("slow"))) == 4


@pytest.mark.slow
def test_durations_are_measured_and_nothing_is_written(flags, tmp_path, capsys):
    assert main([*flags[:-1], "--time=1s"]) == 2
    error = capsys.readouterr().err
    assert "1 s are not enough: 2 epochs take about" in error
    assert not (tmp_path / "fitted").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--time=soon"], "'soon' is not allowed: a time is expected"),
        (["--time=0s"], "a time is expected"),
        (["--memory=20MMACs"], "--memory 20MMACs is not allowed: a size is expected"),
        (["--memory=much"], "budget 'much' is not allowed"),
        (["--budget=5MiB"], "--budget is not allowed: --memory SIZE"),
        (["--run_dir=there"], "--run_dir is not allowed"),
        (["--dry-run"], "neq train"),
        (["--use_validation=0"], "validation"),
        (["--net_name=mcunet-in00"], "mcunet-in0"),
        (["extra"], "'extra' is not allowed"),
    ],
)
def test_wrong_input_is_one_line(flags, tmp_path, capsys, wrong, said):
    flags = [flag for flag in flags if flag.partition("=")[0] != wrong[0].partition("=")[0]]
    assert main([*flags, *wrong]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "fitted").exists()


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on(flags, monkeypatch, capsys):
    steps = iter(range(10**6))

    def step(display, epoch, number, of):
        if next(steps) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    flags = [*flags, "--base_lr=0.01"]
    with monkeypatch.context() as patch:
        patch.setattr("neq.cli.progress.ProgressDisplay.step", step)
        assert main(flags) == 130
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "neq: stopped and saved; run the same command again to continue"
    assert "resume" not in captured.out
    assert main(flags) == 0
    assert "resumed after 1 epochs" in capsys.readouterr().out


def test_the_run_stays_out_of_the_photos(flags, monkeypatch, capsys):
    monkeypatch.chdir("photos")
    assert main(["fit", "."]) == 2
    assert "--out fitted/photos lies inside the photos" in capsys.readouterr().err


def test_a_folder_that_is_missing(flags, capsys):
    assert main(["fit", "nowhere", *flags[2:]]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["fit"]) == 2
    assert "PHOTOS" in capsys.readouterr().err
