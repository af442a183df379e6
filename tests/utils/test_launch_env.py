"""torchrun --nproc-per-node 2 train_classification.py, from start to end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from neq.cli import main as neq_main
from neq.runs import read_metrics, read_summary
from neq.training import load_checkpoint
from tests.training.distributed.together import ENV, ROOT, free_port

pytestmark = pytest.mark.slow

FAST = ["--image_size", "16", "--warmup_epochs", "0", "--base_batch_size", "128"]


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Two processes that train in a folder."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    return subprocess.Popen(
        [sys.executable, *torchrun, str(ROOT / "train_classification.py"), *FAST, *flags],
        env={**ENV, "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def own_lines(error: str) -> list[str]:
    """What neq says on standard error; torchrun says more."""
    return [line for line in error.splitlines() if line.startswith("neq:")]


def traceback_files(error: str) -> list[str]:
    return re.findall(r'File "([^"]+)", line', error)


def test_a_run_in_two_processes_is_the_same_run(tmp_path, monkeypatch, capsys):
    output, error = (training := start(tmp_path, "--n_epochs", "2")).communicate(timeout=900)
    assert training.returncode == 0, error
    assert "Traceback" not in error
    assert re.findall(r"^epoch (\d)", output, re.M) == ["0", "1"]
    assert output.count("best epoch") == output.count("runs/digits/") == 1
    (folder,) = (path.parent for path in tmp_path.rglob("summary.json"))
    assert [row["epochs"] for row in read_metrics(folder)] == [0, 1]
    assert read_summary(folder)["epochs"] == 2
    assert (folder / "curves.png").exists()
    assert not list(folder.rglob("*.tmp"))
    monkeypatch.chdir(tmp_path)
    assert neq_main(["train", *FAST, "--n_epochs", "2"]) == 0  # one process finds what two have made
    assert "holds this run, finished" in capsys.readouterr().out
    assert len(json.loads((folder / "identity.json").read_text())) > 5


def test_a_mistake_is_told_once_and_nothing_is_written(tmp_path):
    output, error = (training := start(tmp_path, "--base_batch_size=3")).communicate(timeout=900)
    assert training.returncode == 1  # torchrun's own
    assert output == ""
    assert own_lines(error) == ["neq: --base_batch_size is given twice, as 128 and as 3; give it once"]
    assert not any("neq" in file.replace(str(ROOT), "") for file in traceback_files(error))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("victim", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_killed_or_all_stopped_leaves_a_checkpoint_that_one_goes_on_from(tmp_path, victim, capsys):
    folder = tmp_path / "run"
    flags = ["--n_epochs", "4", "--run-dir", str(folder)]
    training = start(tmp_path, *flags)
    last = folder / "checkpoint" / "last.pt"
    deadline = time.monotonic() + 600
    while not last.exists():
        assert training.poll() is None, training.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if victim == signal.SIGKILL:
        workers = psutil.Process(training.pid).children()
        (second,) = (worker for worker in workers if worker.environ().get("RANK") == "1")
        os.kill(second.pid, victim)
    else:
        training.send_signal(victim)
    _, error = training.communicate(timeout=300)  # by itself torch waits for half an hour
    assert training.returncode == 1
    assert own_lines(error) == [
        "neq: process 1 of the run has died; run the same command again with --resume to continue from the "
        "last checkpoint"
        if victim == signal.SIGKILL
        else "neq: stopped and saved; run the same command again with --resume to continue"
    ]
    assert not any(file.startswith(str(ROOT / "neq")) for file in traceback_files(error))
    done = load_checkpoint(last)["progress"]["epoch"]
    assert 1 <= done < 4
    assert neq_main(["train", *FAST, *flags, "--resume"]) == 0
    assert f"resumed after {done} epochs" in capsys.readouterr().out
    assert [row["epochs"] for row in read_metrics(folder)] == [0, 1, 2, 3]
