"""The best network of sweeps, named and copied."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from neq.cli import main
from neq.results import collect, runs
from neq.results.best import best_run, copy_best
from neq.results.best_network import load_best
from neq.utils.errors import UserError
from tests.results.run_folders import configs, sweep_file, write_run

ROOT = Path(__file__).resolve().parents[2]
COPIED = {"best.safetensors", "config.yaml", "classes.json", "recipe.json", "predict.py"}


def sweep(tmp_path, *summaries, more=""):
    """A sweep of a run for each summary; none: it is missing, a number: stopped after so many epochs."""
    seeds = ", ".join(map(str, range(len(summaries))))
    text = f"neuron_selection: {{value: random}}\n  manual_seed: {{values: [{seeds}]}}{more}"
    path = sweep_file(tmp_path / "sweep.yaml", text)
    for config, summary in zip(configs(path), summaries, strict=True):
        if isinstance(summary, dict):
            write_run(tmp_path / "runs", config, **summary)
        elif summary is not None:
            write_run(tmp_path / "runs", config, stopped_after=summary)
    return path


def best(tmp_path, path, *arguments):
    return main(["results", "best", str(path), "--runs-dir", str(tmp_path / "runs"), *arguments])


@pytest.fixture
def trained(tmp_path, tiny_run):
    """A sweep whose best run has the network of a real one."""
    path = sweep(tmp_path, {"val_top1": 50.0}, {"val_top1": 90.0})
    (folder,) = (run.folder for run in collect([path], tmp_path / "runs") if run.seed == 1)
    for name in ("checkpoint", "classes.json", "config.yaml", "recipe.json"):
        if (tiny_run / name).is_dir():
            shutil.copytree(tiny_run / name, folder / name)
        else:
            shutil.copy(tiny_run / name, folder / name)
    return path


@pytest.mark.parametrize(("metric", "seed"), [("val_top1", 1), ("val_loss", 2), ("test_top1", 0)])
def test_each_metric_has_its_best(tmp_path, metric, seed):
    path = sweep(
        tmp_path,
        {"val_top1": 80.0, "val_loss": 0.3, "test_top1": 99.0},
        {"val_top1": 95.0, "val_loss": 0.4, "test_top1": 93.0},
        {"val_top1": 90.0, "val_loss": 0.2, "test_top1": 92.0},
        2,
        None,
    )
    assert best_run(runs([path], tmp_path / "runs"), metric)["seed"] == seed


def test_of_equal_runs_the_first(tmp_path):
    path = sweep(tmp_path, {"val_top1": 90.0}, {"val_top1": 95.0}, {"val_top1": 95.0})
    assert best_run(runs([path], tmp_path / "runs"))["seed"] == 1


def test_a_run_whose_metric_is_no_number_is_passed_over(tmp_path):
    path = sweep(tmp_path, {"val_loss": None}, {"val_loss": 9.0})
    assert best_run(runs([path], tmp_path / "runs"), "val_loss")["seed"] == 1


def test_what_is_printed(tmp_path, capsys):
    path = sweep(tmp_path, {"val_top1": 80.0}, {"val_top1": 95.123456, "test_top1": 94.0}, 2, None)
    assert best(tmp_path, path) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert Path(lines[0]).name.startswith("1-")
    assert lines[1] == "best val_top1 of 2 finished runs, 1 missing, 1 unfinished"
    assert "  val_top1 95.1235" in lines
    assert "  test_top1 94.0000" in lines
    assert "  manual_seed 1" in lines
    assert "  neuron_selection random" in lines
    assert "warning" not in out + err


def test_choosing_by_the_test_split_is_warned_of(tmp_path, capsys):
    path = sweep(tmp_path, {})
    assert best(tmp_path, path, "--metric", "test_top1") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("neq: warning: chosen by the test split")


def test_without_validation_there_is_no_best_by_it(tmp_path, capsys):
    path = sweep(tmp_path, {"val_top1": None, "val_loss": None})
    assert best(tmp_path, path) == 2
    assert "--metric test_top1 would choose by the test split" in capsys.readouterr().err


def test_figures_of_several_data_sets_are_not_compared(tmp_path):
    path = sweep_file(tmp_path / "sweep.yaml", "neuron_selection: {value: random}")
    path.write_text(path.read_text().replace("dataset: {value: digits}", "dataset: {values: [digits, svhn]}"))
    for config in configs(path):
        write_run(tmp_path / "runs", config)
    with pytest.raises(UserError, match="the runs are of digits, svhn"):
        best_run(runs([path], tmp_path / "runs"))


@pytest.mark.slow
def test_a_copy_stands_alone_and_classifies_images(tmp_path, trained, tiny_run, capsys):
    target = tmp_path / "copies/best"
    assert best(tmp_path, trained, "--copy", str(target)) == 0
    assert f"copied to {target}" in capsys.readouterr().out
    assert {path.name for path in target.iterdir()} == COPIED
    shutil.rmtree(tmp_path / "runs")

    # Digits as files, in the shades that the run saw; what the script says is what the network gives.
    images, files = load_digits().images[:6], []
    for at, image in enumerate(images):
        files.append(tmp_path / f"{at}.png")
        Image.fromarray(np.round(image * 255 / 16).astype(np.uint8)).save(files[-1])
    command = [sys.executable, str(target / "predict.py"), *map(str, files)]
    done = subprocess.run(
        command,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    network = load_best(tiny_run)
    batch = torch.stack(
        [
            network.prepare(torch.tensor(np.round(image * 255 / 16).astype(np.uint8)).expand(3, -1, -1))
            for image in images
        ]
    )
    with torch.no_grad():
        shares = network.network(batch).softmax(1)
    expected = [
        f"{file}: {network.classes[int(share.argmax())]} ({100 * float(share.max()):.1f} %)"
        for file, share in zip(files, shares, strict=True)
    ]
    assert done.stdout.splitlines() == expected


def test_a_copy_can_be_exported_like_a_run(tmp_path, trained, tiny_run):
    assert best(tmp_path, trained, "--copy", str(tmp_path / "copy")) == 0
    ours, theirs = (load_best(folder).network.state_dict() for folder in (tmp_path / "copy", tiny_run))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_nothing_is_overwritten_without_force(tmp_path, trained, capsys):
    target = tmp_path / "copy"
    target.mkdir()
    (target / "predict.py").write_text("mine")
    (target / "notes.txt").write_text("mine too")
    assert best(tmp_path, trained, "--copy", str(target)) == 2
    assert "holds predict.py already; --force replaces it" in capsys.readouterr().err
    assert {path.name for path in target.iterdir()} == {"predict.py", "notes.txt"}
    assert (target / "predict.py").read_text() == "mine"
    assert best(tmp_path, trained, "--copy", str(target), "--force") == 0
    assert {path.name for path in target.iterdir()} == {*COPIED, "notes.txt"}
    assert "load_best" in (target / "predict.py").read_text()


def test_a_network_that_cannot_be_read_leaves_no_copy(tmp_path, trained, capsys):
    (folder,) = (run.folder for run in collect([trained], tmp_path / "runs") if run.seed == 1)
    (folder / "checkpoint" / "best.safetensors").write_bytes(b"damaged")
    assert best(tmp_path, trained, "--copy", str(tmp_path / "copy")) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


def test_hostile_class_names_come_through(tmp_path, tiny_run):
    folder = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    names = ['a "quoted" one', "=1+1", "ünï", "new\nline", "\udcff", *"fghij"]
    (folder / "classes.json").write_text(json.dumps(names))
    copy_best(folder, tmp_path / "copy")
    assert load_best(tmp_path / "copy").classes == tuple(names)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--metric", "val_top"], "metric 'val_top' is unknown; did you mean 'val_top1'?"),
        (["--copy", "{file}"], "is a file; give a folder"),
        (["--runs-dir", "nowhere"], "none of the 2 runs of these sweeps is done"),
    ],
)
def test_mistakes_are_one_line_and_code_2(tmp_path, trained, capsys, arguments, line):
    given = [part.format(file=trained) for part in arguments]
    assert main(["results", "best", str(trained), "--runs-dir", str(tmp_path / "runs"), *given]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1


def test_a_run_needs_no_sweep_file(tmp_path, tiny_run, capsys):
    assert main(["results", "best", str(tiny_run), "--copy", str(tmp_path / "copy")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(tiny_run), "best val_top1 of 1 finished runs"]
    assert {path.name for path in (tmp_path / "copy").iterdir()} == COPIED


def test_of_a_folder_of_runs_the_best(tmp_path, capsys):
    sweep(tmp_path, {"val_top1": 80.0}, {"val_top1": 95.0}, 2)
    assert main(["results", "best", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert Path(lines[0]).name.startswith("1-")
    assert lines[1] == "best val_top1 of 2 finished runs, 1 unfinished"


def test_a_folder_without_a_run(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["results", "best", str(tmp_path / "empty")]) == 2
    assert "empty' holds no run; give a run's folder, or a sweep file" in capsys.readouterr().err
