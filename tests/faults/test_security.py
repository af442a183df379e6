"""Nothing that is read is executed, and nothing that is secret is written down."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import neq.experiment.run
from neq.cli import main
from neq.config import configs_folder
from neq.data.torchvision_sets import open_c10
from neq.networks.build import build_network
from neq.networks.downloads import SWITCH, tensors_alone
from neq.sweeps.storage import open_storage
from tests.cli.sweeping import postgresql, run_sweep, write_sweep
from tests.faults.forbidden import faults
from tests.faults.hostile import content_of, refusal, refused
from tests.faults.test_fuzz_weights import Malicious, malicious
from tests.toys import ONE_EPOCH

ROOT = configs_folder().parent
SOURCES = sorted(
    path for folder in ("neq", "benchmarks", "train_test_split") for path in (ROOT / folder).rglob("*.py")
) + sorted(ROOT.glob("*.py"))
SECRET = "hunter2-0123456789abcdef0123456789abcdef"
# What stands there on purpose, and a word of the line that names it: torchvision's weights are read within
# tensors_alone(), an unpickler knows four harmless globals (tests/int8/test_tiny_training.py), and a process
# replaces itself by another of the same Python, without a shell.
ALLOWED = {
    "neq/networks/from_torchvision.py": "tensors_alone",
    "neq/int8/tiny_training.py": "pickle.Unpickler",
    "neq/cli/next_process.py": "os.execv",
}


def test_no_source_does_what_none_may():
    found = [line for path in SOURCES for line in faults(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert len(SOURCES) > 150
    kept = [line for line in found if ALLOWED.get(line.partition(":")[0], "\0") not in line]
    assert not kept, "\n".join(kept)
    assert len(found) == len(ALLOWED)


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads",
        "import pickle as p",
        "import pandas as p",
        "import pandas as pd\npd.read_pickle(path)",
        "import marshal",
        "import yaml\nyaml.load(text)",
        "from joblib import load",
        "eval(text)",
        "exec(text, {})",
        "__import__(name)",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "subprocess.run(command, shell=wanted)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "from torch import load",
        "torch.jit.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "YAML()",
        "YAML(typ='unsafe')",
        "tar.extractall(folder)",
        "tar.extract(member, folder)",
        "tar.extract(member, folder, filter='fully_trusted')",
        "Image.open(path)",
        "ImageFile.LOAD_TRUNCATED_IMAGES = True",
        "Image.MAX_IMAGE_PIXELS = None",
        "torch.serialization.add_safe_globals([x])",
        "torch.serialization.safe_globals([x])",
        "tempfile.mktemp()",
        "requests.get(url, verify=False)",
        "ssl._create_unverified_context()",
        "models.get_model(name, weights=weights)",
    ],
)
def test_the_scan_finds_what_is_planted(planted):
    assert faults(planted), planted
    assert not faults(
        "x = torch.load(p, weights_only=True)\ny = np.load(p, allow_pickle=False)\nre.compile('a')"
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["in a state_dict", "pickle", "legacy", "zip"])
def test_a_librarys_weights_in_the_cache_are_not_executed(tmp_path, monkeypatch, kind):
    """torchvision unpickles what lies in the cache, and checks the hash of what it downloads alone."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: 1 / 0)
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    path.write_bytes(malicious(tmp_path / "trace")[kind])
    line = refused(build_network, "pre_trained_torchvision:shufflenet_v2_x0_5", 10, named=str(path))
    assert len(line) < 600
    assert not (tmp_path / "trace").exists()
    assert SWITCH not in os.environ
    if kind == "in a state_dict":  # else this test would show nothing
        weights = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
        with pytest.raises(RuntimeError):
            torchvision.models.get_model("shufflenet_v2_x0_5", weights=weights)
        assert (tmp_path / "trace").exists()


def test_the_switch_of_torch_is_put_back(monkeypatch):
    for value in ("0", "1"):
        monkeypatch.setenv(SWITCH, value)
        with tensors_alone():
            assert os.environ[SWITCH] == "1"
        assert os.environ[SWITCH] == value


def test_the_pickles_of_cifar_are_not_opened_unless_they_are_the_published_ones(tmp_path):
    """torchvision unpickles these files, once their checksums are the published ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{at}" for at in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Malicious(tmp_path / "trace")))
    refused(open_c10, str(tmp_path), named=str(tmp_path))
    assert not (tmp_path / "trace").exists()


PLACES = [
    f"mysql://user:{SECRET}@host/db",
    f"mysql://host/db?password={SECRET}",
    f"user:{SECRET}@host/db",
    f"postgresql:/user:{SECRET}@host/db",
    f"postgresql://user:{SECRET}@127.0.0.1:1/db",
    f"postgresql://user:{SECRET}@127.0.0.1:none/db",
    f"postgresql://127.0.0.1:1/db?user=x&password={SECRET}",
    f"postgresql://user:{SECRET}@127.0.0.1:1/db?{SECRET}=1",
    f"postgresql://user:{SECRET}@127.0.0.1:1/db?sslmode={SECRET}",
    f"postgresql://user:{SECRET}@127.0.0.1:99999999/db",
    f"postgresql://user:{SECRET}%40@127.0.0.1:1/db",
    f"postgresql://user:{SECRET}@[::1/db",
    f"postgresql+nothing://user:{SECRET}@host/db",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_password_is_never_shown(tmp_path, monkeypatch, capsys, place):
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    line = refusal(open_storage, place, tmp_path)
    assert line is not None
    assert SECRET not in line
    file = write_sweep(tmp_path, "manual_seed: {value: 0}")
    before = content_of(tmp_path)
    assert main(["sweep", str(file), "--storage", place, "--debug"]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "Traceback" in said.err
    assert content_of(tmp_path) == before


def secrets_in(folder: Path) -> list[Path]:
    """The files that hold the secret, in their bytes or in what a zip unpacks to."""
    import zipfile

    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        contents = [path.read_bytes(), str(path).encode()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        if any(SECRET.encode() in content for content in contents):
            found.append(path)
    return found


@pytest.mark.slow
def test_a_password_is_in_no_log_of_a_sweep(tmp_path):
    """Also not where a cell fails with a fault, whose traceback is in the log."""
    with postgresql() as place:
        work = tmp_path / "work"
        work.mkdir()
        write_sweep(work, "manual_seed: {value: 0}, weights: {value: missing.pth}")
        address = place.replace("neq@", f"neq:{SECRET}@")
        code, output = run_sweep(work, "sweep.yaml", "--storage", address, "--debug")
    assert code == 1, output
    assert "missing.pth" in output
    assert SECRET not in output
    logs = list((work / "runs").rglob("*.log"))
    assert logs
    assert "missing.pth" in logs[0].read_text()
    assert not secrets_in(work)


@pytest.fixture
def key(monkeypatch):
    """A key in the environment, with W&B switched off."""
    for name in ("WANDB_API_KEY", "HF_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, SECRET)


FAST = [*ONE_EPOCH, "--net_name", "mcunet-in0"]


@pytest.mark.slow
def test_a_key_is_in_no_file_of_a_run_nor_in_its_book(key, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *FAST, "--debug"]) == 0
    sweep = (
        "program: train_classification.py\nmethod: grid\nparameters: {n_epochs: {value: 1}, warmup_epochs: "
        "{value: 0}, image_size: {value: 24}, net_name: {value: mcunet-in0}}\n"
    )
    (tmp_path / "sweep.yaml").write_text(sweep)
    assert main(["results", "book", "-w", "sweep.yaml"]) == 0
    said = capsys.readouterr()
    assert "1 done" in said.out
    assert SECRET not in said.out + said.err
    assert len(list(tmp_path.rglob("*"))) > 10
    assert not secrets_in(tmp_path)


@pytest.mark.parametrize("kind", ["mistake", "fault", "refused key"])
def test_a_key_is_not_told_where_something_goes_wrong(key, tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)

    def broken(*_args: object) -> None:
        raise RuntimeError("a fault of the program")

    if kind == "fault":
        monkeypatch.setattr(neq.experiment.run, "open_run", broken)
    argv = ["train", *FAST, "--debug"] if kind != "mistake" else ["train", "--n_epochs", "x", "--debug"]
    if kind == "refused key":
        pytest.importorskip("wandb")
        from neq.runs import WandbMirror

        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
        sections = {"data_provider": {"dataset": "digits"}, "net_config": {"net_name": "toy"}}
        config = {**sections, "NEq_config": {"neuron_selection": "random"}, "manual_seed": 0}
        lines: list[str] = []
        with WandbMirror(tmp_path, config, "toys", lines.append, patience=4):
            pass
        assert lines
        said = "\n".join(lines)
    else:
        assert main(argv) == (2 if kind == "mistake" else 1)
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert "Traceback" in said
    assert SECRET not in said
    assert not secrets_in(tmp_path)


def test_the_search_for_secrets_finds_one(tmp_path):
    import zipfile

    (tmp_path / "a.txt").write_text(f"key: {SECRET}")
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sheet.xml", f"<t>{SECRET}</t>" * 9)
    assert sorted(path.name for path in secrets_in(tmp_path)) == ["a.txt", "b.xlsx"]
    assert sys.version_info >= (3, 11)
