"""`neq retrain`: one network on one shifted task after another."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tests.planning.toy_network  # noqa: F401  (registers toy:NAME)
from neq.budget.step_time import StepTime
from neq.cli import main
from tests.forked import NEQ, Forked

ROOT = Path(__file__).resolve().parents[2]


PLANNED = ["shift.yaml", "--plan", "auto", "--memory", "1GiB"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sequence of a source and one task, on 200 digits."""
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    np.savez("digits.npz", x=np.round(digits.images[:200] * 15).astype(np.uint8), y=digits.target[:200])
    Path("shift.yaml").write_text(
        f"common: {{dataset: 'npz:{tmp_path}/digits.npz', augmentation: none, net_name: 'toy:net', "
        "ratio: .5, base_batch_size: 20, warmup_epochs: 0, n_epochs: 2, base_lr: .05}\n"
        "tasks: [{corruption: contrast:4}]\n"
    )
    return tmp_path / "shift.yaml"


def test_first_and_second_call(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "shift.yaml", "--store"]) == 2
    assert "store" in capsys.readouterr().err
    assert not Path("retrained").exists()
    assert main(["retrain", "shift.yaml", "--n_epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("epoch 0") == 2
    assert "epoch 1" not in out
    record = json.loads(Path("retrained/shift/sequence.json").read_text())
    for stage in record["stages"]:
        for top1 in stage["top1"].values():
            assert f"{top1:.2f}" in out
    for row in ("source", "statistics alone", "after 01_contrast-4"):
        assert row in out
    assert main(["retrain", "shift.yaml", "--n_epochs", "1"]) == 0
    again = capsys.readouterr().out
    assert "epoch" not in again
    assert again == out[out.index("test photos of each task") :]
    # With other settings it is another sequence.
    assert main(["retrain", "shift.yaml"]) == 2
    error = capsys.readouterr().err
    assert "n_epochs is 1 there, 2 here" in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_the_shipped_sequence_of_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--net_name", "toy:net", "--n_epochs", "1", "--image_size", "8"]
    assert main(["retrain", "digits_corrupted", *flags]) == 0
    record = json.loads(Path("retrained/digits_corrupted/sequence.json").read_text())
    objectives = [stage["objective"] for stage in record["stages"]]
    assert objectives == [*["classification"] * 3, "tent", "tent"]
    out = capsys.readouterr().out
    for stage in record["stages"]:
        assert f"{stage['stored']['bytes']:,} bytes, {stage['stored']['top1']:.2f} % after reloading" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.yaml"], "'nowhere.yaml' does not exist"),
        ([], "SEQUENCE"),
        (["shift.yaml", "--overwrite"], "--overwrite is not allowed"),
        (["shift.yaml", "--dry-run"], "--dry-run is not allowed"),
        (["shift.yaml", "--run_dir", "x"], "--run_dir is not allowed: the sequence decides it"),
        (["shift.yaml", "--corruption", "fog:1"], "--corruption would replace that of single tasks"),
        (["shift.yaml", "--n_epoch", "1"], "'--n_epoch' is unknown; did you mean '--n_epochs'"),
        (["shift.yaml", "--out", "digits.npz"], "--out digits.npz is a file"),
        (["shift.yaml", "--out", "."], "and no sequence.json"),
        (["shift.yaml", "--plan", "auto"], "--plan auto needs the limit that it is for; give --memory SIZE"),
        (["shift.yaml", "--plan", "best"], "invalid choice: 'best'"),
        (["shift.yaml", "--memory", "1GiB"], "memory '1GiB' is unknown. Allowed: fast, tight"),
        (["shift.yaml", "--deadline", "9s"], "--deadline and --probe are those of a plan; give --plan auto"),
        ([*PLANNED, "--deadline", "0"], "'0' is not allowed: a time is expected"),
        ([*PLANNED, "--probe"], "--probe takes shares of the deadline; give --deadline TIME, as 10min"),
        ([*PLANNED, "--checkpoint_cuts", "[a]"], "checkpoint_cuts is not allowed with a plan"),
    ],
)
def test_mistakes(arguments: list[str], text: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = sorted(file.parent.rglob("*"))
    assert main(["retrain", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert len(error.splitlines()) == 1
    assert sorted(file.parent.rglob("*")) == there


@pytest.mark.slow
def test_each_task_has_processes_of_its_own(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Replaced(BaseException):
        pass

    def execv(program: str, arguments: list[str]) -> None:
        raise Replaced(*arguments)

    monkeypatch.setattr("neq.cli.next_process.os.execv", execv)
    monkeypatch.setattr("neq.planning.estimate.kept_step_time", lambda *_: StepTime(1e-5, 1e-12, 1e-12, 0.1))
    file.write_text(file.read_text().replace("ratio: .5, ", "norm_mode: train, ") + "plan: {memory: 8GiB}\n")
    flags = ["retrain", "shift.yaml", "--saved_precision", "exact", "--checkpoint_segments", "1"]
    for _ in range(2):  # before the task, and between its planning and its training
        with pytest.raises(Replaced) as error:
            main(flags)
        assert error.value.args[1:] == ("-m", "neq", *flags)
    assert Path("retrained/shift/plans/01_contrast-4.json").exists()
    assert not Path("retrained/shift/01_contrast-4").exists()
    capsys.readouterr()
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert "which plan ran when" in out
    assert "finished" in out


def test_several_processes_are_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["retrain", "shift.yaml"]) == 2
    assert "runs in one process" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_in_a_run_the_same_command_continues_bit_for_bit(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["retrain", "shift.yaml", "--n_epochs=8"]
    source = Path("retrained/shift/00_source")
    process = Forked("import tests.planning.toy_network" + NEQ, *flags)
    started = time.monotonic()
    while not (source / "checkpoint" / "last.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < started + 120
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert not (source / "summary.json").exists()
    assert main(flags) == 0
    assert "resumed after" in capsys.readouterr().out
    assert main([*flags, "--out", "whole"]) == 0
    for name in ("sequence.json", "sequence.csv", "01_contrast-4/checkpoint/best.safetensors"):
        assert Path("retrained/shift", name).read_bytes() == Path("whole", name).read_bytes()


def test_ctrl_c_names_what_continues(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("stopped and saved; run the same command again with --resume to continue")

    monkeypatch.setattr("neq.planning.retrain.run_training", interrupted)
    assert main(["retrain", "shift.yaml"]) == 130
    assert capsys.readouterr().err == "neq: stopped and saved; run the same command again to continue\n"
    assert json.loads(Path("retrained/shift/sequence.json").read_text())["stages"] == []
