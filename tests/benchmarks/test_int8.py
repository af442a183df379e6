import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.int8 import FLOAT, GRID, NAMES, NETWORK, SCHEME, SETS, cells, main
from benchmarks.int8_table import tables
from benchmarks.transfer_report import Report
from benchmarks.transfer_runs import Setting, Task, resolved
from neq.config import section_of
from neq.wings.int8 import Int8Settings
from tests.benchmarks.pages import ROOT, refusal, table_of

MACHINE = {"cpu": "a cpu", "torch": "2", "threads": 1, "device": "cpu"}


def config_of(name, tmp_path):
    made = cells({NETWORK: 300_000, FLOAT: 400_000}, "float.safetensors")
    setting = Setting("flowers12", "photos", NETWORK, scheme=SCHEME, cells=made)
    return resolved(Task(setting, name, (made[name].grid or GRID)[0], 0, tmp_path / "run")).config


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_what_they_are_called(name, tmp_path):
    config = config_of(name, tmp_path)
    method, what = name.split(", ")
    neq, net = config.NEq_config, config.net_config
    assert net.net_name == (FLOAT if method == "float" else NETWORK)
    assert net.weights == ("float.safetensors" if method == "float" else "default")
    assert config.run_config.optimizer_name == ("adam" if method == "Adam" else "sgd")
    if method != "float":
        assert section_of(config, Int8Settings).qas == (method == "QAS")
    if what in ("velocity", "auto"):
        limit = {NETWORK: 300_000, FLOAT: 400_000}[net.net_name]
        assert (neq.neuron_selection, neq.budget, neq.budget_unit) == (what, limit, "bytes")
    elif what in ("full", "head"):
        assert (neq.neuron_selection, neq.ratio) == (what, 1.0 if what == "full" else 0.0)
    else:
        scheme = {"100 kB": SCHEME}.get(what, f"mcunet-in1_{what.replace(' ', '_')}")
        assert (neq.scheme, neq.neuron_selection, neq.unit) == (scheme, "SU", "input_channel")
    assert len(SETS) == 4


def run(cell, seed, test_top1, base_lr, val_top1=90.0, dataset="flowers12", outcome="finished"):
    return {
        "dataset": dataset, "cell": cell, "base_lr": base_lr, "seed": seed, "outcome": outcome,
        "reason": None, "val_top1": val_top1, "val_loss": 0.5, "test_top1": test_top1, "best_epoch": 3,
        "saved_bytes": 2**15, "step_seconds": [0.5, 0.25], "machine": MACHINE, "kept_bytes": 1024.0,
        "training_bytes": 3072.0, "model_kilobytes": None if cell.startswith("float") else 99.84,
    }  # fmt: skip


def test_the_table_is_of_the_rates_that_validation_keeps(tmp_path):
    settings = {"network": NETWORK, "image_size": 128, "batch_size": 32, "epochs": 18, "grid_seed": 0}
    runs = [run("QAS, 100 kB", seed, 80.0 + 2 * seed, 0.05, 91.0) for seed in (0, 1)]
    runs += [run("QAS, 100 kB", 0, 99.0, 0.0125, 90.0), run("QAS, 100 kB", 0, 70.0, 0.05, dataset="cifar10")]
    runs += [run("QAS, full", 0, 8.0, rate, outcome="diverged") for rate in GRID]
    runs += [run("float, 100 kB", 0, 85.0, 0.05)]
    path = tmp_path / "int8.json"
    path.write_text(json.dumps({"settings": settings, "runs": runs}))
    rows = {
        cells_[0]: cells_[1:]
        for line in tables(Report(path)).splitlines()[2:]
        if (cells_ := [part.strip() for part in line.strip("|").split("|")])
    }
    assert rows["QAS, 100 kB"] == ["81.00 ± 1.41", "70.00", "99.8", "1.0", "3.0", "0.250"]
    assert rows["QAS, full"] == ["diverged", "–", "99.8", "1.0", "3.0", "0.250"]
    assert rows["float, 100 kB"][2] == "–"
    assert "QAS, 100 kB: 0.05* on flowers12, 0.05* on cifar10" in tables(Report(path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "photos", "--sets", "nothing"], "nothing"),
        (["--data", "photos", "--cells", "SGD, half"], "SGD, half"),
        ([], "--data is missing"),
        (["--data", "photos", "--output", "no/such/folder.json"], "no place for a file"),
    ],
)
def test_bad_arguments_are_one_line(capsys, arguments, said):
    assert said in refusal(main, arguments, capsys)


@pytest.fixture
def data(tmp_path):
    """Two sets: a folder of images, and an archive."""
    stream = np.random.default_rng(0)
    for label in range(2):
        for split, count in (("train", 12), ("test", 2)):
            folder = tmp_path / "data/flowers12" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = stream.integers(100 * label, 100 * label + 100, (20, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "data/cifar10").mkdir()
    x = stream.integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(24) % 2, "x_test": x[:4], "y_test": np.arange(4) % 2}
    np.savez(tmp_path / "data/cifar10/cifar10_subset.npz", **arrays, classes=np.array(["a", "b"]))
    return tmp_path / "data"


@pytest.mark.slow
def test_runs_are_trained_recorded_and_shown(data, tmp_path, capsys):
    output = tmp_path / "int8.json"
    call = ["--data", str(data), "--weights", "none", "--sets", "flowers12,cifar10", "--image-size", "16"]
    call += ["--epochs", "1", "--seeds", "1", "--output", str(output)]
    assert main([*call, "--cells", "QAS, head"]) == 0
    assert main([*call, "--sets", "flowers12", "--cells", "QAS, head;QAS, 100 kB;float, 100 kB"]) == 0
    runs = json.loads(output.read_text())["runs"]
    assert len(runs) == 2 * 3 + 2 * 3
    by_cell = {run["cell"]: run for run in runs if run["kept_bytes"] is not None}
    assert by_cell["QAS, 100 kB"]["kept_bytes"] < by_cell["float, 100 kB"]["kept_bytes"]
    assert by_cell["QAS, head"]["model_kilobytes"] == 160 / 1024
    assert by_cell["float, 100 kB"]["model_kilobytes"] is None
    capsys.readouterr()
    assert main([*call, "--cells", "QAS, head"]) == 0  # nothing is left to do
    assert capsys.readouterr().out == ""


def test_the_page_holds_exactly_what_was_measured():
    assert table_of("docs/int8.md") == tables(Report(ROOT / "benchmarks/int8.json"))
