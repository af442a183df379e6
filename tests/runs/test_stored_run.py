"""Reading a run's folder, also one of the format before this version."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from neq.cli import main
from neq.config import resolve
from neq.results.best_network import load_best
from neq.runs import Environment, RecordHeader, RunRecord, StoredRun, Stretch, differences, find_run, load_run
from neq.runs.layout import FORMAT
from neq.runs.record_header import UNKNOWN
from neq.runs.run_reader import recorded_runs
from neq.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# Written by the version before record.json, one run finished, one stopped in its second epoch; then every
# number of the networks was replaced by 0, which packs to nothing.
FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1.tar.xz"
SETTINGS = {
    "image_size": 16,
    "n_epochs": 2,
    "warmup_epochs": 0,
    "base_batch_size": 128,
    "base_lr": 0.05,
    "momentum": 0.9,
    "ratio": 0.1,
    "neuron_selection": "velocity",
}
FLAGS = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]


@pytest.fixture
def former(tmp_path, monkeypatch):
    """The folder of the runs of format 1."""
    monkeypatch.chdir(tmp_path)
    with tarfile.open(FORMAT_1) as archive:
        archive.extractall(tmp_path / "runs", filter="data")
    return tmp_path / "runs"


def run_of(former, seed):
    (folder,) = former.glob(f"digits/*/*/*/*/*/{seed}-*")
    return folder


def config(seed):
    return resolve({}, {**SETTINGS, "manual_seed": seed}).config


def test_runs_of_format_1_are_found_and_listed(former):
    done, unfinished = run_of(former, 0), run_of(former, 1)
    assert (find_run(config(0), former).folder, find_run(config(0), former).state) == (done, "done")
    assert find_run(config(1), former).state == "unfinished"
    found = {one.folder: one for one in recorded_runs(former)}
    assert found[done].state == "done"
    assert found[done].summary is not None
    assert found[done].summary["epochs"] == 2
    assert found[unfinished].reason == "unfinished, 1 of 2 epochs"
    assert [one.header for one in found.values()] == [UNKNOWN, UNKNOWN]


def test_a_run_of_format_1_is_read_whole(former):
    run = load_run(run_of(former, 0))
    assert run.header == UNKNOWN
    assert run.identity["manual_seed"] == 0
    assert run.config.run_config.n_epochs == 2
    assert [row["epochs"] for row in run.metrics] == [0, 1]
    assert run.is_finished
    assert run.summary["best_epoch"] in (0, 1)
    assert run.classes == tuple(map(str, range(10)))


def test_the_best_network_of_format_1_loads(former):
    best = load_best(run_of(former, 0))
    assert best.classes == tuple(map(str, range(10)))
    assert best.image_size == 16


def test_a_finished_run_of_format_1_is_not_trained_again(former, capsys):
    before = {path: path.read_bytes() for path in run_of(former, 0).rglob("*") if path.is_file()}
    assert main(["train", *FLAGS]) == 0
    assert "holds this run, finished" in capsys.readouterr().out.replace("\n", " ")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_an_unfinished_run_of_format_1_is_resumed(former, capsys):
    folder = run_of(former, 1)
    assert main(["train", *FLAGS, "--manual_seed", "1", "--resume"]) == 0
    assert "resumed after 1 epochs and" in capsys.readouterr().out
    run = load_run(folder)
    assert run.is_finished
    assert run.header.format == FORMAT
    (stretch,) = run.header.stretches
    assert stretch.epoch == 1
    assert stretch.step > 0


@pytest.mark.slow
def test_a_run_resumed_in_another_environment_records_both_and_says_so(former, capsys):
    folder = run_of(former, 1)
    RecordHeader(stretches=(Stretch(Environment(threads=64)),)).write(folder)
    assert main(["train", *FLAGS, "--manual_seed", "1", "--resume"]) == 0
    assert "resumed in another environment, which may change the result: threads 64 -> 1" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    first, second = load_run(folder).header.stretches
    assert (first.environment.threads, second.environment.threads) == (64, 1)
    assert second.begin > (1, 0)
    (found,) = (one for one in recorded_runs(former) if one.folder == folder)
    assert differences(found.environments) == {"threads": (64, 1)}


def test_runs_of_format_1_are_gathered_into_a_book(former, capsys):
    sweep = "program: train_classification.py\nmethod: grid\nparameters:\n  manual_seed: {values: [0, 1]}\n"
    sweep += "".join(f"  {name}: {{value: {value}}}\n" for name, value in SETTINGS.items())
    Path("sweep.yaml").write_text(sweep)
    assert main(["results", "book", "sweep.yaml", "--runs-dir", "runs"]) == 0
    assert "2 runs: 1 done, 1 unfinished, 0 damaged, 0 missing" in capsys.readouterr().out


def newer(folder):
    """Turns a run into one of the format after this version's."""
    (folder / "record.json").write_text(json.dumps({"format": FORMAT + 1}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["train", *FLAGS],
        ["train", *FLAGS, "--resume"],
        ["train", *FLAGS, "--dry-run"],
        ["export", "{run}", "--onnx", "net.onnx"],
        ["sync", "{run}"],
    ],
)
def test_a_newer_format_is_refused_in_one_line_with_code_2(former, command, capsys):
    folder = newer(run_of(former, 0))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code = main([part.format(run=folder) for part in command])
    shown = capsys.readouterr()
    said = shown.out if "--dry-run" in command else shown.err
    assert f"format {FORMAT + 1}" in said.replace("\n", " ")
    assert code == (0 if "--dry-run" in command else 2)
    assert shown.err.count("\n") <= 1
    assert {path: path.read_bytes() for path in before} == before


def test_one_run_of_a_newer_format_is_listed_as_damaged_with_the_reason(former):
    folder = newer(run_of(former, 0))
    (found,) = (one for one in recorded_runs(former) if one.folder == folder)
    assert found.state == "damaged"
    assert f"reads formats up to {FORMAT}; update neq" in found.reason
    with pytest.raises(UserError, match="update neq"):
        find_run(config(0), former)


def test_overwrite_replaces_a_newer_format(former):
    folder = newer(run_of(former, 0))
    RunRecord(folder).check({"seed": 1}, resume=False, overwrite=True)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("identity.json", "[]", "identity"),
        ("config.yaml", "n_epochs: x", "config"),
        ("metrics.jsonl", "{}\n", "metrics"),
        ("summary.json", "{", "summary"),
        ("summary.json", None, "summary"),
        ("classes.json", '{"a": 1}', "classes"),
        ("checkpoint", None, "best_weights"),
    ],
)
def test_each_damaged_file_raises_when_it_is_asked_for(former, name, content, what):
    folder = run_of(former, 0)
    path = folder / name
    if content is not None:
        path.write_text(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    run = load_run(folder)
    with pytest.raises(UserError, match=str(folder)):
        getattr(run, what)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no run; give the folder of one, with its config\.yaml"):
        load_run(tmp_path)


def test_a_run_without_class_names_has_none(tmp_path):
    assert StoredRun(tmp_path, UNKNOWN).classes is None


def test_reading_runs_imports_neither_torch_nor_pandas(former):
    code = (
        "import sys; from pathlib import Path; from neq.runs import load_run;"
        "from neq.runs.run_reader import recorded_runs;"
        "runs = recorded_runs(Path('runs')); run = load_run(runs[0].folder);"
        "assert run.config and run.identity and run.summary and run.metrics and run.classes;"
        "print(sorted({'torch', 'pandas', 'timm', 'openpyxl'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    env = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"
