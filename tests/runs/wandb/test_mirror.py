"""Runs mirrored to W&B by its own, unmodified client, against a server on the loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from neq.cli import main as neq_main
from neq.config import read_yaml
from neq.experiment.run import StopEarly
from neq.runs import SweepCell, WandbMirror, load_run, read_metrics, read_summary, wandb_cell, why_no_wandb
from neq.runs.wandb.mirror import KILLED, PATIENCE
from neq.training import EpochReport
from neq.utils.exit_codes import Terminated
from tests.forked import NEQ, Forked, run_forked
from tests.runs.wandb.processes import left_behind, wait_until
from tests.runs.wandb.server import KEY, Store, log_in, serving, shown

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
# Against hanging: without a limit W&B's client tries for days. Seconds.
GUARD = 120
FAST = ["--image_size", "16", "--n_epochs", "1", "--warmup_epochs", "1", "--base_batch_size", "128"]
CONFIG = {
    "project_name": "toys",
    "manual_seed": 3,
    "data_provider": {"dataset": "digits"},
    "net_config": {"net_name": "toy"},
    "NEq_config": {"neuron_selection": "velocity"},
}


@pytest.fixture
def store():
    return Store()


@pytest.fixture(autouse=True)
def logged_in(tmp_path, monkeypatch):
    """As somebody who is logged in, at a server that is not there."""
    log_in(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture
def folder(tmp_path):
    """A record without epochs."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "identity.json").write_text("{}")
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    return folder


def epoch(folder, number):
    row = {"epochs": number, "valid": {"val/best": 50.0 + number}, "nothing": None}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def summary(folder):
    (folder / "summary.json").write_text('{"test_top1": 60.0}')


def test_a_direct_run_is_mirrored(store, tmp_path, monkeypatch):
    """History and configuration are complete there, and the key is nowhere but in the requests."""
    with serving(store) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        done = run_forked(NEQ, "train", *FAST, "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "run/wandb.json").read_text())
    assert kept["complete"]
    assert f"W&B shows this run at {url}/somebody/neq/runs/{kept['id']}" in done.stdout
    run = store.runs[f"neq/{kept['id']}"]
    assert run["exitcode"] == 0
    assert shown(run) == read_metrics(tmp_path / "run")
    assert [row["_step"] for row in run["history"]] == [0, 1]
    assert run["config"] == read_yaml(tmp_path / "run/config.yaml")
    summed = {key: value for key, value in read_summary(tmp_path / "run").items() if value is not None}
    assert {key: run["summary"][key] for key in summed} == summed
    assert run["summary"]["valid"]["val/best"] == read_metrics(tmp_path / "run")[-1]["valid"]["val/best"]
    assert store.keys == {KEY}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, Terminated, StopEarly])
def test_a_stopped_run_is_shown_so_and_goes_on(store, folder, monkeypatch, stopped_by):
    with serving(store) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        mirror = WandbMirror(folder, CONFIG, "toys", print)
        mirror.__enter__()
        epoch(folder, 0)
        mirror.__exit__(stopped_by)
        (run,) = store.runs.values()
        assert (run["exitcode"], len(run["history"])) == (KILLED, 1)
        assert run["display_name"] == "digits/toy/velocity/seed 3"
        epoch(folder, 1)
        with WandbMirror(folder, CONFIG, "toys", print) as mirror:
            summary(folder)
        assert mirror.complete
        assert (run["exitcode"], run["summary"]["test_top1"]) == (0, 60.0)
        assert [row["_step"] for row in run["history"]] == [0, 1]


def test_without_a_server_a_run_ends_in_time_and_is_sent_later(store, folder, monkeypatch, capsys):
    lines = []
    with WandbMirror(folder, CONFIG, "toys", lines.append, patience=2) as mirror:
        epoch(folder, 0)
        summary(folder)
        start = time.monotonic()
    assert 2 <= time.monotonic() - start < GUARD
    assert not mirror.complete
    assert lines == [f"W&B does not have all of this run; send it later with neq sync {folder}"]
    wait_until(lambda: not left_behind())
    with serving(store) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        for _ in range(2):  # again: nothing changes
            assert neq_main(["sync", str(folder)]) == 0
            (run,) = store.runs.values()
            assert shown(run) == read_metrics(folder)
            assert run["config"] == CONFIG
            assert run["summary"]["test_top1"] == 60.0
            assert run["exitcode"] == 0


def test_a_server_that_goes_in_the_middle_of_a_run(store, folder, monkeypatch):
    with serving(store) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        mirror = WandbMirror(folder, CONFIG, "toys", print, patience=2)
        mirror.__enter__()
        epoch(folder, 0)
        store.wait_for(lambda store: any(run["config"] for run in store.runs.values()))
    epoch(folder, 1)
    summary(folder)
    start = time.monotonic()
    mirror.__exit__(None)
    assert time.monotonic() - start < GUARD
    assert not mirror.complete
    wait_until(lambda: not left_behind())
    with serving(store) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert neq_main(["sync", str(folder)]) == 0
    (run,) = store.runs.values()
    assert shown(run) == read_metrics(folder)


def test_a_server_that_comes_after_the_start_of_a_run(store, folder, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    lines = []
    mirror = WandbMirror(folder, CONFIG, "toys", lines.append)
    mirror.__enter__()
    epoch(folder, 0)

    def told():
        mirror.epoch(EpochReport(0, {}, torch.zeros(1), None))
        return lines

    wait_until(told)
    assert "W&B is unreachable; retrying until the run ends" in lines[0]
    with serving(store, port):
        store.wait_for(lambda store: any(run["config"] for run in store.runs.values()))
        mirror.__exit__(None)
    assert mirror.complete
    (run,) = store.runs.values()
    assert shown(run) == read_metrics(folder)


def test_a_killed_run_leaves_no_process_behind(store, folder, tmp_path):
    """Nobody says that it is over then: the end of the pipe does."""
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from neq.runs import WandbMirror
        with WandbMirror(Path("run"), {CONFIG!r}, "toys", print):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with serving(store) as url:
        epoch(folder, 0)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": url}
        done = subprocess.run([sys.executable, "-c", code], env=env, check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        store.wait_for(lambda store: any(run["exitcode"] == KILLED for run in store.runs.values()))
    wait_until(lambda: not left_behind())
    (run,) = store.runs.values()
    assert shown(run) == read_metrics(folder)


def test_sigterm_in_a_cell_of_a_sweep(store, tmp_path, monkeypatch):
    """The checkpoint is kept, W&B has the epochs; the cell, started again, goes on."""
    (tmp_path / "cell.yaml").write_text("wandb_version: 1\nrun_config:\n  value: {n_epochs: 40}\n")
    with serving(store) as url:
        for name, value in {
            "WANDB_BASE_URL": url,
            "WANDB_SWEEP_ID": "sweep",
            "WANDB_RUN_ID": "cell",
            "WANDB_PROJECT": "ours",
            "WANDB_SWEEP_PARAM_PATH": "cell.yaml",
            "PYTHONPATH": str(ROOT),
        }.items():
            monkeypatch.setenv(name, value)
        command = ["train", *FAST[:2], *FAST[4:], "--run-dir=run"]
        process = Forked(NEQ, *command)
        wait_until(lambda: (tmp_path / "run/checkpoint/last.pt").exists() and store.runs, 120)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    (run,) = store.runs.values()
    assert (run["name"], run["project"], run["sweep"]) == ("cell", "ours", "sweep")
    assert run["exitcode"] == KILLED
    assert run["config"]["run_config"]["n_epochs"] == 40
    assert load_run(tmp_path / "run").header.sweeps == (SweepCell("ours/sweep", "cell"),)
    assert run["config"]["run_config"]["momentum"] == 0.9
    assert shown(run) == read_metrics(tmp_path / "run")
    assert len(run["history"]) >= 1
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert neq_main([*command, "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("variables", "cell"),
    [
        ({}, None),
        ({"WANDB_RUN_ID": "r1"}, None),
        ({"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "r1"}, SweepCell("s1", "r1")),
        (
            {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "r1", "WANDB_ENTITY": "me", "WANDB_PROJECT": "neq"},
            SweepCell("me/neq/s1", "r1"),
        ),
    ],
)
def test_the_cell_that_an_agent_started(variables, cell):
    assert wandb_cell(variables) == cell


def test_the_wait_is_within_the_promise():
    assert PATIENCE < 30


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "RUN_DIR"), (["nowhere"], "nowhere holds no run"), (["run", "--timeout", "x"], "--timeout")],
)
def test_what_sync_refuses(arguments, said, folder, capsys):
    assert neq_main(["sync", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_is_obeyed(mode, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.delenv("WANDB_API_KEY")
    assert why_no_wandb() == ("" if mode == "disabled" else None)
    if mode == "offline":
        lines = []
        with WandbMirror(folder, CONFIG, "toys", lines.append) as mirror:
            epoch(folder, 0)
        assert not mirror.complete
        assert "W&B is offline" in lines[0]
        (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
        assert kept.stat().st_size > 200


def test_sync_without_a_login(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert neq_main(["sync", "run"]) == 2
    assert "not logged in to W&B (wandb login); nothing was sent" in capsys.readouterr().err
