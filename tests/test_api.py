"""The public API: what `import neq` gives, and runs from Python."""

import signal
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

import neq
from neq.cli import main
from neq.config import read_yaml
from neq.utils.errors import UserError
from tests.toys import TINY_RUN

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"n_epochs": 1, "warmup_epochs": 0, "image_size": 24, "device": "cpu", "ratio": 0.1}
USER = """
import neq
from neq import Budget, CostModel, Plan, neuron_table
from torch import nn

network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
table = neuron_table(network, (3, 3, 3))
reveal_type(table)
reveal_type(Plan(network, table, {}, "frozen"))
reveal_type(Budget("parameters", amount=3).limit(10))
reveal_type(neq.train(n_epochs=1))
reveal_type(neq.load_run("runs/x").metrics)
neq.load_run(3)
neq.nothing
"""


def code(text):
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_neq_loads_nothing_else():
    text = (
        "import sys, neq; print(*[name for name in ('torch', 'pydantic', 'neq.api') if name in sys.modules])"
    )
    assert code(text) == ""


@pytest.mark.slow
def test_the_core_loads_neither_pydantic_nor_yaml():
    wrong = "('pydantic', 'ruamel', 'ruamel.yaml', 'neq.config', 'optuna', 'rich')"
    core = "neq.Plan, neq.neuron_table, neq.Budget, neq.CostModel"
    text = f"import sys, neq; {core}; print(*[name for name in {wrong} if name in sys.modules])"
    assert code(text) == ""


def test_every_public_name_is_there():
    assert set(neq.__all__) <= set(dir(neq))
    for name in neq.__all__:
        assert getattr(neq, name) is not None
    with pytest.raises(AttributeError, match="module 'neq' has no attribute 'train_run'"):
        neq.train_run  # noqa: B018


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"neq {neq.__version__}\n"
    try:
        assert version("neq") == neq.__version__
    except PackageNotFoundError:  # a checkout that is not installed
        assert neq.__version__.count(".") == 2


@pytest.mark.slow
def test_a_users_mypy_sees_types(tmp_path):
    file = tmp_path / "user.py"
    file.write_text(USER)
    # Types of libraries take long to read, and are not what this is about.
    libraries = "torch,torchvision,timm,numpy,pydantic,matplotlib,optuna,sqlalchemy,rich,PIL,ruamel"
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in libraries.split(","))
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nignore_missing_imports = true\n{skipped}")
    command = [sys.executable, "-m", "mypy", "--python-executable", sys.executable, str(file)]
    environment = {"MYPYPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    shown = [line.partition(": ")[2] for line in done.stdout.splitlines() if "user.py" in line]
    revealed = [line.partition("is ")[2] for line in shown if "Revealed" in line]
    assert revealed == [
        '"neq.networks.neurons.NeuronTable"',
        '"neq.backward.plan.Plan"',
        '"int"',
        '"neq.api.Run"',
        '"list[dict[str, Any]]"',
    ], done.stdout
    assert any('"load_run" has incompatible type "int"' in line for line in shown)


def test_the_package_is_typed():
    assert (ROOT / "neq" / "py.typed").is_file()


@pytest.fixture(scope="module")
def in_a_thread(tmp_path_factory):
    """A run that was trained in a thread, where no signal handler can be set, and its notes and epochs."""
    folder, found, notes = tmp_path_factory.mktemp("threads"), [], []

    class Epochs:
        def step(self, epoch, step, steps):
            pass

        def epoch(self, report):
            found.append(report.epoch)

        def finish(self, summary):
            found.append(summary["epochs"])

    def run():
        found.append(neq.train(runs=folder / "runs", trackers=[Epochs()], notes=notes.append, **SETTINGS))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found, notes


def test_a_run_in_a_thread(in_a_thread):
    found, notes = in_a_thread
    assert found[:2] == [0, 1]
    run = found[2]
    assert run.is_finished
    assert run.summary["epochs"] == 1
    assert [row["epochs"] for row in run.metrics] == [0]
    assert run.config.run_config.n_epochs == 1
    assert run.best().classes == tuple("0123456789")
    network = run.network()
    assert not network.training
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, 10)
    assert all(line for line in notes)


def test_it_is_the_run_of_the_command(in_a_thread, tiny_run):
    run, command = in_a_thread[0][2], neq.load_run(tiny_run)
    assert [item for name, value in SETTINGS.items() for item in (f"--{name}", str(value))] == TINY_RUN
    assert (run.folder / "identity.json").read_bytes() == (command.folder / "identity.json").read_bytes()
    for key in ("val_top1", "val_loss", "test_top1"):
        assert run.summary[key] == command.summary[key]


def test_it_takes_over_neither_signals_nor_console(in_a_thread, capfd):
    folder = in_a_thread[0][2].folder.parents[6]
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run = neq.train(runs=folder, **SETTINGS)  # it is finished
    assert run == in_a_thread[0][2]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert capfd.readouterr() == ("", "")


def test_what_a_run_starts_from(in_a_thread, tmp_path):
    run = in_a_thread[0][2]
    folder = run.folder.parents[6]
    assert neq.train("transfer", runs=folder, **SETTINGS) == run
    assert neq.train(run.folder / "config.yaml", runs=folder) == run
    assert neq.train(run.config, runs=folder) == run
    assert neq.train(read_yaml(run.folder / "config.yaml"), runs=folder, n_epochs=1) == run


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"n_epoch.* is unknown; did you mean 'n_epochs'"):
        neq.train(n_epoch=3)
    with pytest.raises(UserError, match="resume and overwrite contradict"):
        neq.train(resume=True, overwrite=True)
    with pytest.raises(UserError, match="holds no run; give the folder of one"):
        neq.load_run(tmp_path)
    (tmp_path / "identity.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match=r"summary.json cannot be read"):
        _ = neq.load_run(tmp_path).summary
