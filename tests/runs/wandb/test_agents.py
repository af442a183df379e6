"""Sweeps by W&B's own, unmodified `wandb sweep` and `wandb agent`, against a server on the loopback."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from neq.cli import main as neq_main
from neq.config import read_yaml
from neq.runs import read_metrics, read_summary
from neq.runs.wandb.mirror import KILLED
from tests.cli.sweeping import run_sweep
from tests.runs.wandb.processes import left_behind, wait_until
from tests.runs.wandb.server import log_in, serving, shown
from tests.runs.wandb.sweep_server import SweepStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
WANDB = [sys.executable, "-m", "wandb"]
LONG = 600.0  # seconds, for what takes some on a quiet machine
EPOCHS = 3
SMALL = {
    "dataset": {"value": "npz:small.npz"},
    "image_size": {"value": 16},
    "base_batch_size": {"value": 64},
}
# The program at the top level, which waits after the first two epochs until the test lets it go on. It waits
# at its end for W&B, by default for 25 s, and draws no pictures, which take longer than the training.
PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path
import neq.cli.run_pictures
import neq.experiment.run
from neq.cli import main
from neq.training import loop

save = loop.save

def save_and_wait(run, progress, is_best=False):
    save(run, progress, is_best)
    while progress.epoch < 3 and not Path(f"go{progress.epoch}").exists():
        time.sleep(0.02)

loop.save = save_and_wait
neq.cli.run_pictures.draw_missing = lambda _: []
neq.experiment.run.WandbMirror = partial(neq.experiment.run.WandbMirror, patience=PATIENCE)
sys.exit(main(["train", *sys.argv[1:]]))
"""
# Without ${args}; the exit code of each cell is kept.
CODES = ["sh", "-c", '"$@"; echo "$WANDB_RUN_ID $?" >> codes', "cell", "python3", "${program}"]


@pytest.fixture
def store():
    return SweepStore()


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """As somebody who is logged in and stands in a copy of the repository; nothing runs on after the test."""
    log_in(monkeypatch, tmp_path)
    write_program(patience=240)
    stream = np.random.default_rng(0)
    images = stream.integers(0, 255, (500, 16, 16, 3), dtype=np.uint8)
    np.savez("small.npz", x=images, y=np.arange(500) % 10)
    for name, value in {
        "HOME": tmp_path / "home",
        "WANDB_DIR": tmp_path,
        "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": 1,  # seconds, instead of 15: to be in the middle of a run
        "PYTHONPATH": ROOT,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, str(value))
    yield
    try:
        wait_until(lambda: not left_behind())
    finally:
        for process in left_behind():
            os.kill(process, signal.SIGKILL)


def write_program(patience):
    Path("train_classification.py").write_text(PROGRAM.replace("PATIENCE", str(patience)))


def go_on_after(epoch):
    """Lets every training go on after an epoch, counted from 1."""
    Path(f"go{epoch}").touch()


@contextmanager
def server(store, monkeypatch, port=0):
    with serving(store, port) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        yield int(url.rpartition(":")[2])


def begin(file):
    """`wandb sweep`; gives the name that its agents take."""
    command = [*WANDB, "sweep", "--project", "ours", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 0, done.stderr
    found = re.search(r"wandb agent (\S+)", done.stderr)
    assert found, done.stderr
    return found[1]


@pytest.fixture
def agents():
    """Starts `wandb agent`s of a sweep."""
    started = []

    def start(sweep, number, *flags):
        command = [*WANDB, "agent", *flags, sweep]
        new = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(number)
        ]
        started.extend(new)
        return new

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said_by(processes):
    """All that agents and their trainings said, once they have ended well."""
    said = [process.communicate(timeout=LONG)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def records():
    """The folders of the runs here, by seed, neurons and ratio."""
    found = {}
    for file in Path("runs").rglob("config.yaml"):
        config = read_yaml(file)
        neurons = config["NEq_config"]
        found[config["manual_seed"], neurons["neuron_selection"], neurons["ratio"]] = file.parent
    return found


def record_of(run):
    """The folder of a run, by what the server was told of its configuration."""
    neurons = run["config"]["NEq_config"]
    return records()[run["config"]["manual_seed"], neurons["neuron_selection"], neurons["ratio"]]


def assert_complete(run, epochs):
    """W&B has all that the run's own record holds, each epoch once, and the run has ended well."""
    folder = record_of(run)
    assert shown(run) == read_metrics(folder)
    assert [row["_step"] for row in run["history"]] == list(range(epochs))
    assert read_yaml(folder / "config.yaml").items() <= run["config"].items()
    summary = {key: value for key, value in read_summary(folder).items() if value is not None}
    assert {key: run["summary"][key] for key in summary} == summary
    assert run["summary"]["valid"] == read_metrics(folder)[-1]["valid"]
    assert run["exitcode"] == 0


def in_the_middle(store):
    """The runs whose resolved configuration is there, and not yet their end."""
    runs = store.runs.values()
    return [run for run in runs if "net_config" in run["config"] and run["exitcode"] is None]


def best_run(sweep):
    """Name and metric of the best run, as the client's own Python interface gives it."""
    code = f"""if True:
        import json, wandb
        run = wandb.Api().sweep({sweep!r}).best_run()
        print(json.dumps([run.id, run.summary["valid"]["val/best"]]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=LONG
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_the_same_without_an_account(file):
    """`neq sweep` makes the same runs of the file, with the same metrics."""
    code, output = run_sweep(Path.cwd(), file, "--workers", "2", "--runs-dir", "alone")
    assert code == 0, output

    def metrics(runs):
        return {
            file.parent.relative_to(runs): [
                {name: value for name, value in row.items() if name != "step_seconds"}
                for row in read_metrics(file.parent)
            ]
            for file in Path(runs).rglob("summary.json")
        }

    assert metrics("alone") == metrics("runs")


def test_two_agents_share_the_cells_of_a_sweep(store, monkeypatch, agents):
    """Each of four cells once, whatever happens: a training is killed, then the server is away for a while.

    policies/test_policy.yaml with fewer images, more epochs and a nested section; values come as flags. The
    killed run is deleted on W&B's page, and the grid hands its cell out again, as another run.
    """
    policy = read_yaml(ROOT / "policies/test_policy.yaml")
    del policy["parameters"]["n_epochs"], policy["parameters"]["warmup_epochs"]
    policy["parameters"] |= SMALL | epochs(EPOCHS) | {"manual_seed": {"values": [0, 42]}}
    Path("policy.yaml").write_text(json.dumps(policy))
    with server(store, monkeypatch) as port:
        sweep = begin("policy.yaml")
        processes = agents(sweep, 2)
        store.wait_for(in_the_middle, LONG)
        (killed, *_) = in_the_middle(store)
        wait_until(lambda: (record_of(killed) / "checkpoint/last.pt").exists(), LONG)
        os.kill(training_of(killed), signal.SIGKILL)
        store.wait_for(lambda store: killed["exitcode"] == KILLED, LONG)
        assert shown(killed) == read_metrics(record_of(killed))
        assert len(killed["history"]) < EPOCHS
        store.delete(killed)
        store.wait_for(in_the_middle, LONG)
    (cut_off, *_) = in_the_middle(store)
    had = len(cut_off["history"])
    assert had < 2
    go_on_after(1)
    wait_until(lambda: len(read_metrics(record_of(cut_off))) > had, LONG)
    with server(store, monkeypatch, port):
        go_on_after(2)
        said = said_by(processes)
        best = best_run(sweep)
    cells = store.cells("sweep0")
    assert len(cells) == len(records()) == len({record_of(run) for run in cells}) == 4
    for run in cells:
        assert_complete(run, epochs=EPOCHS)
    started = [text.count("About to run command") for text in said]
    assert sum(started) == 5
    assert min(started) > 0
    assert re.findall(r"neq: resumed after (\d) epochs", "".join(said)) == ["1"]
    assert len(re.findall(r"^epoch \d", "".join(said), re.M)) == 4 * EPOCHS  # nothing was trained twice
    reached = {run["name"]: read_metrics(record_of(run))[-1]["valid"]["val/best"] for run in cells}
    assert best[1] == max(reached.values()) > min(reached.values())
    assert reached[best[0]] == best[1]
    assert_the_same_without_an_account("policy.yaml")


def test_a_server_that_is_gone_for_good(store, monkeypatch, agents):
    """Two trainings end well, in time, with complete records, which are sent when there is a server again.

    Values come through the agent's file, nested ones too. A third cell is invalid and fails at once.
    """
    write_program(patience=3)
    write_policy({"NEq_config": {"parameters": {"ratio": {"values": [-1, 0.3, 0.5]}}}} | epochs(EPOCHS))
    with server(store, monkeypatch) as port:
        processes = agents(begin("policy.yaml"), 2)
        store.wait_for(lambda store: len(in_the_middle(store)) == 2, LONG)
    invalid, *runs = store.cells("sweep0")
    assert runs == in_the_middle(store)
    go_on_after(1)
    go_on_after(2)
    wait_until(lambda: len(codes()) == 3, LONG)
    assert codes()[0] == (invalid["name"], 2)
    assert sorted(codes()[1:]) == [(run["name"], 0) for run in runs]
    for run in runs:
        folder = record_of(run)
        assert len(read_metrics(folder)) == EPOCHS > len(run["history"])
        assert not json.loads((folder / "wandb.json").read_text())["complete"]
        waited = (folder / "wandb.json").stat().st_mtime - (folder / "summary.json").stat().st_mtime
        assert waited < 30
    for process in processes:
        process.terminate()
    said = "".join(process.communicate(timeout=LONG)[0] for process in processes)
    errors = [line for line in said.splitlines() if line.startswith("neq: ") and "ratio -" in line]
    assert [line.partition(" (")[0] for line in errors] == [
        "neq: ratio -1 is not allowed: it must be greater than or equal to 0"
    ]
    assert "send it later with neq sync" in said
    with server(store, monkeypatch, port):
        assert neq_main(["sync", *(str(record_of(run)) for run in runs)]) == 0
    for run in runs:
        assert_complete(run, epochs=EPOCHS)
        assert run["sweep"] == "sweep0"


def training_of(run):
    """The process that an agent started for a run."""
    (found,) = [
        process
        for process in left_behind()
        if b"train_classification.py" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        and f"WANDB_RUN_ID={run['name']}".encode()
        in Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    ]
    return found


def epochs(number):
    """Parameters of a sweep file, as a nested section."""
    constants = {"n_epochs": {"value": number}, "warmup_epochs": {"value": 0}}
    return {"run_config": {"parameters": constants}}


def write_policy(parameters):
    """A grid that says itself how its program is called, without ${args}."""
    policy = read_yaml(ROOT / "policies/test_policy.yaml")
    fixed = {name: policy["parameters"][name] for name in ("net_name", "initialization")}
    policy["parameters"] = fixed | SMALL | parameters
    Path("policy.yaml").write_text(json.dumps({**policy, "command": CODES}))


def codes():
    """The exit codes of the cells that ended, by run."""
    if not Path("codes").exists():
        return []
    return [
        (name, int(code)) for name, code in (line.split() for line in Path("codes").read_text().splitlines())
    ]
