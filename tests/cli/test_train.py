import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from neq.budget import Latency
from neq.cli import main as neq_main
from neq.networks.build import build_network
from neq.runs import read_metrics, read_selection, read_summary
from neq.training.checkpoint import FORMAT
from tests.forked import NEQ, Forked
from tests.toys import drawing

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
# Two fast epochs of the default network.
FAST = ["--image_size", "16", "--n_epochs", "1", "--warmup_epochs", "1", "--base_batch_size", "128"]


def main(arguments):
    return neq_main(["train", *arguments])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unpredicted(monkeypatch):
    """A dry run does not predict its memory, which takes longer than the rest."""
    monkeypatch.setattr("neq.experiment.dry_run.predicted_line", lambda _: "")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of one finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with drawing():
        assert main([*FAST, "--run-dir", str(folder)]) == 0
    return folder


def test_a_run_leaves_its_record(finished):
    assert {path.name for path in finished.iterdir()} == {
        ".lock", "checkpoint", "classes.json", "config.yaml", "curves.png", "identity.json", "metrics.jsonl",
        "recipe.json", "record.json", "selection", "selection.png", "summary.json",
    }  # fmt: skip
    rows = read_metrics(finished)
    assert [row["epochs"] for row in rows] == [0, 1]
    summary = read_summary(finished)
    assert summary["seed"] == 0
    assert summary["budget"] == 162953
    assert summary["selected_parameters_max"] <= 162953
    for epoch, row in enumerate(rows):
        chosen, velocity = read_selection(finished / "selection", epoch)
        assert len(chosen) == 6832
        assert int(chosen.sum()) == row["Saved parameters"]["Number of saved neurons"]
        assert velocity is not None
        assert velocity.shape == (6832,)
    layers = json.loads((finished / "selection" / "table.json").read_text())["layers"]
    assert sum(layer["neurons"] * layer["parameters"] for layer in layers) == 543176


def test_the_best_weights_load_into_the_plain_network(finished):
    network = build_network("mcunet-in0", 10, seed=5)
    network.load_state_dict(
        safetensors.torch.load_file(finished / "checkpoint" / "best.safetensors"), strict=True
    )


@pytest.mark.parametrize("name", ["curves.png", "selection.png"])
def test_pictures_are_drawn(finished, name):
    with Image.open(finished / name) as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 10


def test_a_finished_run_is_not_trained_again(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert main([*FAST, "--run-dir", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "finished; --overwrite trains it again" in out
    assert "test top-1 of that epoch" in out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_recorded_config_repeats_the_run(finished, tmp_path):
    again = tmp_path / "again"
    assert main(["--config-file", str(finished / "config.yaml"), "--run-dir", str(again)]) == 0
    assert (again / "identity.json").read_text() == (finished / "identity.json").read_text()
    for key in ("val_top1", "test_top1", "best_epoch", "selected_parameters_max", "saved_bytes"):
        assert read_summary(again)[key] == read_summary(finished)[key]


@pytest.mark.slow
def test_another_run_in_the_folder_is_refused_and_overwrite_replaces_it(finished, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    other = [*FAST, "--base_lr", "0.02", "--run-dir", str(folder)]
    assert main(other) == 2
    assert "base_lr is 0.05 there, 0.02 here" in capsys.readouterr().err
    assert read_summary(folder) == read_summary(finished)
    assert main([*other, "--overwrite"]) == 0
    assert [row["epochs"] for row in read_metrics(folder)] == [0, 1]
    assert read_metrics(folder)[1]["lr"] < 0.02


def test_an_unfinished_run_needs_resume(finished, tmp_path, capsys):
    folder = tmp_path / "unfinished"
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    assert main([*FAST, "--run-dir", str(folder)]) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert not (folder / "summary.json").exists()
    assert main([*FAST, "--run-dir", str(folder), "--resume"]) == 0
    assert read_summary(folder)["test_top1"] == read_summary(finished)["test_top1"]
    assert len(read_metrics(folder)) == 2


def test_a_metrics_line_after_the_checkpoint_comes_again_once(finished, tmp_path):
    folder = tmp_path / "torn"
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epochs": 2, "train"')  # cut off while it was written
    assert main([*FAST, "--run-dir", str(folder), "--resume"]) == 0
    assert (folder / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_resume_with_nothing_there_starts(tmp_path):
    assert main([*FAST, "--run-dir", "new", "--resume"]) == 0
    assert len(read_metrics(tmp_path / "new")) == 2


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_text("x")
    for extra in ([], ["--overwrite"], ["--resume"]):
        assert main([*FAST, "--run-dir", "holiday", *extra]) == 2
        assert "'photo.jpg' and no run of neq" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "holiday").iterdir()] == ["photo.jpg"]


def test_two_processes_in_one_folder(tmp_path, capsys):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        assert main([*FAST, "--run-dir", "run"]) == 2
    assert "another process is training" in capsys.readouterr().err


@pytest.mark.slow
def test_different_runs_do_not_share_a_folder(capsys, unpredicted):
    """Fault 10: the folder's name ignored learning rate, epochs, batch and image size."""
    same = [[], ["--n_worker=2"], ["--project_name=other"]]
    changed = ["base_lr=0.03", "base_batch_size=64", "image_size=24", "n_epochs=2", "norm_mode=train"]
    folders = []
    for arguments in (*same, *([f"--{setting}"] for setting in changed)):
        assert main(["--dry-run", *arguments]) == 0
        folders.append(re.search(r"run_dir: (runs/\S+)", capsys.readouterr().out)[1])
    assert folders[0] == folders[1] == folders[2]
    assert len(set(folders)) == 1 + len(changed)


@pytest.mark.slow
def test_dry_run_tells_everything_and_writes_nothing(tmp_path, capsys):
    arguments = ["--dry-run", "--net_name", "mbv2", "--scheme", "mbv2_scheme_1", "--neuron_selection", "SU"]
    assert main([*arguments, "--initialization", "SU", "--image_size", "32"]) == 0
    out = capsys.readouterr().out
    assert "17,056 selectable neurons in 52 layers, 2,189,760 parameters" in out
    assert "budget: 192,312 parameters an epoch" in out
    assert "would use 192,312 parameters of it" in out
    assert "with 192,312 parameters, 8.78 % of all" in out
    assert "MiB: " in out
    assert "net_name: mbv2" in out
    assert re.search(r"^features\.13\.conv\.1\.0 +576 +9 ", out, re.M)
    assert "nothing is written" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_budget_in_time_is_shown_and_one_below_the_forward_pass_writes_nothing(
    tmp_path, capsys, monkeypatch
):
    device = Latency({"step": 8e6, "layers_passed": 1e5}, 0.07)
    monkeypatch.setattr("neq.training.step_times.kept_latency", lambda *_: device)
    assert main([*FAST, "--dry-run", "--budget", "9ms"]) == 0
    out = capsys.readouterr().out
    assert "budget_unit: time" in out
    assert "budget: 9.000 ms an epoch" in out
    assert re.search(r"epoch 0 \(random\) would use [89]\.\d{3} ms of it", out)
    assert "step time: 8.000 ms with nothing chosen" in out
    assert main([*FAST, "--budget", "7.5ms"]) == 2
    error = capsys.readouterr().err
    assert "a budget of 7.500 ms is less than what always runs: the forward pass, head and norms" in error
    assert "need 8.000 ms" in error
    assert not list(tmp_path.iterdir())


BAD = {
    "unknown key": (["--n_epoch", "3"], "did you mean '--n_epochs'"),
    "unknown policy": (["--neuron_selection", "velocty"], "did you mean 'velocity'"),
    "unknown scheme": (["--scheme", "mbv2_scheme_9"], "mbv2_scheme_"),
    "unknown network": (["--net_name", "mbv3"], "did you mean 'mbv2'"),
    "unknown dataset": (["--dataset", "digit"], "did you mean 'digits'"),
    "unknown config": (["--config-file", "transfr"], "did you mean 'transfer'"),
    "wrong type": (["--n_epochs", "many"], "n_epochs 'many'"),
    "no number": (["--base_lr", ".nan"], "base_lr"),
    "no rate": (["--base_lr", "fast"], "base_lr 'fast' is not allowed: a number is expected"),
    "no rate above 0": (["--base_lr", "0"], "base_lr 0 is not allowed"),
    "a search without validation": (["--base_lr=auto", "--use_validation=0"], "compares rates on validation"),
    "negative budget": (["--budget", "-5"], "budget -5"),
    "a budget in seconds": (["--budget", "3s"], "or a time (30ms)"),
    "a time in another unit": (["--budget", "30ms", "--budget_unit", "macs"], "budget 30ms is a time"),
    "negative ratio": (["--ratio=-0.1"], "ratio -0.1"),
    "zero epochs": (["--n_epochs", "0"], "n_epochs 0"),
    "empty split": (["--validation_percentage", "0.0001"], "validation"),
    "no velocity images": (["--velocity_images", "0"], "velocity_images 0"),
    "SU without lists": (["--neuron_selection", "SU"], "SU"),
    "SU on another network": (["--scheme", "mbv2_scheme_1", "--initialization", "SU"], "is of mbv2, of"),
    "an unknown objective": (["--objective", "tents"], "did you mean 'tent'"),
    "nothing that trains": (["--objective", "tent", "--norm_mode", "frozen"], "nothing trains with"),
    "missing folder": (["--dataset", "image_folder", "--root", "nowhere"], "nowhere"),
    "folder without root": (["--dataset", "image_folder"], "--root"),
    "a value alone": (["digits"], "digits"),
    "an empty value": (["--n_epochs", ""], "n_epochs is given an empty value"),
    "only the case differs": (["--net_name", "MBV2"], "did you mean 'mbv2'"),
    "a folder name too long": (["--run-dir", "x" * 300], "File name too long"),
    "a missing value": (["--n_epochs"], "n_epochs"),
    "classes that differ": (["--new_num_classes", "7"], "7"),
    "SU list above the budget": (
        ["--neuron_selection=SU", "--manual_weight_idx=44", "--weight_update_ratio=1", "--budget=10"],
        "more than the budget of 10",
    ),
    "SU list beyond the network": (
        ["--neuron_selection=SU", "--manual_weight_idx=99", "--weight_update_ratio=1"],
        "names conv 99, but the network has 45 convs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_code_2_and_nothing_written(case, tmp_path, capsys):
    arguments, said = BAD[case]
    assert main([*FAST[:2], *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("neq: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_refused(capsys):
    assert main([*FAST, "--device", "cuda"]) == 2
    assert "take --device cpu or auto" in capsys.readouterr().err


def test_a_fault_is_code_1_and_one_line(monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("the disk is on fire\nsecond line")

    monkeypatch.setattr("neq.experiment.run.open_network", broken)
    assert main(FAST) == 1
    err = capsys.readouterr().err
    assert err == "neq: the disk is on fire (RuntimeError; --debug shows where)\n"
    assert main([*FAST, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_no_account_and_no_cuda_are_needed(finished):
    """Fault 12: one local run needed both, and the published entry point did not run at all."""
    blocked = "import sys; sys.modules['wandb'] = None; import runpy; sys.argv = ['train_classification.py',"
    blocked += (
        f" '--dry-run']; runpy.run_path({str(ROOT / 'train_classification.py')!r}, run_name='__main__')"
    )
    blocked = "import os; del os.environ['WANDB_MODE']; " + blocked
    process = Forked(blocked, env={"CUDA_VISIBLE_DEVICES": ""})
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert "nothing is written" in output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_resume_goes_on(number, code, tmp_path, finished):
    process = Forked(NEQ, "train", *FAST, "--run-dir", "stopped")
    deadline = time.monotonic() + 120
    while not (tmp_path / "stopped" / "checkpoint" / "last.pt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if process.returncode != 0:  # else the second epoch was faster than the signal
        assert process.returncode == code
        assert "--resume" in err
        assert "Traceback" not in err
        assert main([*FAST, "--run-dir", "stopped", "--resume"]) == 0
    assert read_summary(tmp_path / "stopped")["test_top1"] == read_summary(finished)["test_top1"]


def damaged(finished, tmp_path, unfinished=True):
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    if unfinished:
        (folder / "summary.json").unlink()
    return folder


def damage(folder, *names):
    for name in names:
        (folder / "checkpoint" / f"{name}.pt").write_bytes(b"x")


def exchange(folder, **content):
    torch.save({"format": FORMAT, **content}, folder / "checkpoint" / "last.pt")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "checkpoint"), "no checkpoint to resume from"),
        (lambda folder: damage(folder, "last", "previous", "best"), "last.pt is not a readable checkpoint"),
        (lambda folder: exchange(folder, network={}, progress={}), "is not one of this run"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "lacks some of the 2 epochs"),
        (lambda folder: (folder / "metrics.jsonl").write_text("{}x\n"), "metrics.jsonl is damaged"),
        (
            lambda folder: (folder / "identity.json").write_text("[1]"),
            "identity.json is damaged (it holds [1]); --overwrite starts the run again",
        ),
    ],
)
def test_a_damaged_run_is_not_resumed_and_not_lost(harm, said, finished, tmp_path, capsys):
    folder = damaged(finished, tmp_path)
    harm(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([*FAST, "--run-dir", str(folder), "--resume"]) == 2
    assert said in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_summary_is_named(finished, tmp_path, capsys):
    folder = damaged(finished, tmp_path, unfinished=False)
    (folder / "summary.json").write_text("")
    assert main([*FAST, "--run-dir", str(folder)]) == 2
    assert "summary.json is damaged" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_costs_nothing_else(finished, tmp_path, monkeypatch, capsys):
    folder = damaged(finished, tmp_path, unfinished=False)
    (folder / "curves.png").unlink()

    def refuse(metrics, path, title):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("neq.results.plot_curves", refuse)
    with drawing():
        assert main([*FAST, "--run-dir", str(folder)]) == 0
    captured = capsys.readouterr()
    assert "neq: curves.png cannot be written (Permission denied)" in captured.out
    assert "best epoch" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "may not be read or written (permission denied); make it so, or give another"),
        (errno.ENOTDIR, "lies below a file, where no folder is; give another"),
        (errno.ENAMETOOLONG, "is too long for the name of a file"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line_and_code_2(monkeypatch, capsys, number, said):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), "/root/runs")

    monkeypatch.setattr("neq.experiment.run.run_training", refuse)
    assert main(FAST) == 2
    assert capsys.readouterr().err == f"neq: '/root/runs' {said}\n"


@pytest.mark.slow
def test_missing_pictures_are_drawn_and_a_missing_selection_folder_is_made(finished, tmp_path):
    folder = damaged(finished, tmp_path)
    for name in ("curves.png", "selection.png"):
        (folder / name).unlink()
    shutil.rmtree(folder / "selection")
    (folder / "checkpoint" / ".last.pt.77.tmp").touch()
    with drawing():
        assert main([*FAST, "--run-dir", str(folder), "--resume"]) == 0
    assert (folder / "curves.png").exists()
    assert not list(folder.rglob(".*.tmp"))
    (folder / "selection.png").unlink()
    with drawing():
        assert main([*FAST, "--run-dir", str(folder)]) == 0
    assert (folder / "selection.png").exists()


def test_resume_and_overwrite_contradict_each_other(finished, capsys):
    assert main([*FAST, "--run-dir", str(finished), "--resume", "--overwrite"]) == 2
    assert "contradict" in capsys.readouterr().err


def test_a_run_among_its_own_images_is_refused(tmp_path, monkeypatch, capsys):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(12):
                Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(
                    tmp_path / split / name / f"{number}.png"
                )
    assert main([*FAST, "--dataset=image_folder", "--root=.", "--velocity_images=2"]) == 2
    assert "inside the images" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_home_folder_is_understood(tmp_path, monkeypatch, capsys, unpredicted):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["--dry-run", "--run-dir", "~/run"]) == 0
    assert f"run_dir: {tmp_path}/home/run (free)" in capsys.readouterr().out


@pytest.mark.slow
def test_dry_run_says_what_the_folder_holds(finished, capsys, unpredicted):
    assert main([*FAST, "--dry-run", "--run-dir", str(finished)]) == 0
    assert "(holds this run, finished)" in capsys.readouterr().out
    assert main([*FAST, "--dry-run", "--run-dir", str(finished), "--base_lr=0.3"]) == 0
    assert "holds another run (base_lr is 0.05 there, 0.3 here)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_reader_that_goes_does_not_end_the_run(tmp_path):
    command = f"{sys.executable} {ROOT}/train_classification.py {' '.join(FAST)} --run-dir piped | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=ENV, capture_output=True, check=False
    )
    assert read_summary(tmp_path / "piped")["epochs"] == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_ascii_output_shows_what_it_can(tmp_path):
    command = [sys.executable, str(ROOT / "train_classification.py"), "--dry-run", "--project_name", "проект"]
    env = {**ENV, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\\u043f" in done.stdout


def test_help_shows_the_defaults_of_the_default_run(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "epochs after warm-up (default: 15)" in out
    assert "a short search on validation (default: 0.05)" in out


@pytest.mark.slow
def test_neq_command(capsys, tmp_path, unpredicted):
    assert neq_main(["train", "--dry-run", *FAST]) == 0
    assert "nothing is written" in capsys.readouterr().out
    assert neq_main(["--help"]) == 0
    assert "neq train --help" in capsys.readouterr().out
    assert neq_main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    for what, name in (("networks", "mcunet-in4"), ("datasets", "image_folder")):
        assert neq_main([what]) == 0
        assert name in capsys.readouterr().out
        assert neq_main([what, "x"]) == 2


@pytest.mark.slow
def test_an_image_folder_trains(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 30), ("test", 6)):
        for index, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                grey = torch.randint(0, 100, (20, 24, 3), generator=generator) + 140 * index
                Image.fromarray(grey.to(torch.uint8).numpy()).save(folder / f"{number}.png")
    command = ["--dataset=image_folder", "--root=photos", "--image_size=24", "--base_batch_size=8"]
    command += ["--net_name=mcunet-in0"]
    # Two shades need no long training: an over-large rate is fine, and batch statistics settle in 8 epochs.
    assert main([*command, "--n_epochs=8", "--warmup_epochs=0", "--velocity_images=4", "--ratio=1"]) == 0
    (summary,) = tmp_path.glob("runs/image_folder/**/summary.json")
    assert json.loads(summary.read_text())["test_top1"] > 90
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "photos", moved)
    command[1] = f"--root={moved}"
    assert main([*command, "--n_epochs=8", "--warmup_epochs=0", "--velocity_images=4", "--ratio=1"]) == 0
    assert len(list(tmp_path.glob("runs/image_folder/**/summary.json"))) == 1


@pytest.mark.slow
def test_a_scheme_from_a_file(tmp_path, capsys):
    """The run keeps its lists, so that its network is read when the file is gone."""
    from neq.results.best_network import load_best

    path = tmp_path / "my.yaml"
    path.write_text(
        "network: mcunet-in0\nbudget: 30000\nmanual_weight_idx: 30-32\nweight_update_ratio: 1-0.5\n"
    )
    arguments = [*FAST, "--ratio", "null", "--scheme", str(path), "--initialization", "SU"]
    arguments += ["--neuron_selection", "SU", "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 0
    known = json.loads((tmp_path / "run" / "identity.json").read_text())
    assert re.fullmatch("my@[0-9a-f]{10}", known["scheme"])
    assert known["manual_weight_idx"] == [30, 32]
    assert main(arguments) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    path.unlink()
    assert load_best(tmp_path / "run").config.NEq_config.scheme == known["scheme"]
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
