"""A full disk, a read-only folder, a folder that is deleted: one clear line, the last good state is kept."""

import contextlib
import errno
import os
import shutil
import subprocess
from functools import partial

import pytest

import neq.training.checkpoint as checkpoint_module
import neq.utils.atomic_files
from benchmarks.forked_runs import code_of, start
from benchmarks.kill_resume import differences
from neq.runs import RunRecord, read_metrics
from neq.training import Checkpoints, load_checkpoint
from neq.training import loop as loop_module

pytestmark = pytest.mark.slow

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert code_of(start(folder)) == 0
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 200 KiB: its kind, mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "neq-test", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def after_epochs(count, harm):
    """Does harm when so many epochs are saved."""
    real = loop_module._train_epoch

    def epoch(run, progress, number):
        if number == count:
            harm(run)
        return real(run, progress, number)

    loop_module._train_epoch = epoch


def fill(run):
    """Leaves no room on the disk."""
    ballast = run.checkpoints.folder.parents[1] / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))


def read_only(run):
    for folder in (run.checkpoints.folder, run.checkpoints.folder.parent):
        subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)


def delete(run):
    shutil.rmtree(run.checkpoints.folder.parent)


def no_room(name, run):
    """Every write of a file of that name fails, as on a full disk."""
    real = neq.utils.atomic_files.atomic_file.__wrapped__

    def failing(path):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        yield from real(path)

    checkpoint_module.atomic_file = contextlib.contextmanager(failing)


def said_in_one_line(folder, *words):
    text = folder.with_suffix(".txt").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("neq: ") and "--debug" in line]
    assert all(word in line for word in words), line
    assert "Traceback" not in text
    assert "what was saved before is kept" in line
    assert "again with --resume to continue" in line


def test_a_disk_that_fills_up_in_training(small_disk, tmp_path, whole):
    folder = small_disk / "run"
    output = tmp_path / "run.txt"
    process = start(folder, output=output, before=partial(after_epochs, 1, fill))
    assert code_of(process) == 1
    said_in_one_line(tmp_path / "run", "No space left on device", str(folder))
    assert load_checkpoint(folder / "checkpoint" / "last.pt")["progress"]["epoch"] == 1
    assert not list(folder.rglob("*.tmp"))
    (small_disk / "ballast").unlink()
    assert code_of(start(folder, "--resume", output=output)) == 0
    assert differences(folder, whole) == []


@pytest.mark.parametrize("name", ["best.safetensors", "best.pt", "last.pt"])
def test_a_checkpoint_for_which_there_is_no_room(tmp_path, whole, name):
    folder = tmp_path / "run"
    process = start(folder, before=partial(after_epochs, 1, partial(no_room, name)))
    assert code_of(process) == 1
    said_in_one_line(folder, f"checkpoint/{name} cannot be written (No space left on device)")
    assert load_checkpoint(folder / "checkpoint" / "last.pt")["progress"]["epoch"] >= 1
    assert code_of(start(folder, "--resume")) == 0
    assert differences(folder, whole) == []


@pytest.mark.skipif(not IS_ROOT, reason="only root may mount")
def test_a_folder_that_turns_read_only(tmp_path, whole):
    folder = tmp_path / "run"
    probe = tmp_path / "probe"
    probe.mkdir()
    if subprocess.run(["mount", "--bind", probe, probe], capture_output=True, check=False).returncode:
        pytest.skip("no folder can be mounted here")
    subprocess.run(["umount", probe], check=True)
    try:
        assert code_of(start(folder, before=partial(after_epochs, 1, read_only))) == 1
        said_in_one_line(folder, "Read-only file system")
        state = load_checkpoint(folder / "checkpoint" / "last.pt")
        assert state["progress"]["epoch"] == 1
    finally:
        for mounted in (folder, folder / "checkpoint"):
            subprocess.run(["umount", mounted], capture_output=True, check=False)
            subprocess.run(["umount", mounted], capture_output=True, check=False)
    assert code_of(start(folder, "--resume")) == 0
    assert differences(folder, whole) == []


def test_a_folder_that_is_deleted_under_the_run(tmp_path, whole):
    folder = tmp_path / "run"
    assert code_of(start(folder, before=partial(after_epochs, 1, delete))) == 1
    text = folder.with_suffix(".txt").read_text()
    assert "cannot be written (No such file or directory)" in text
    assert "Traceback" not in text
    assert not folder.exists()  # nothing half is left that looks like a run
    assert code_of(start(folder, "--resume")) == 0
    assert differences(folder, whole) == []


def test_a_metrics_line_that_was_cut_off_by_a_full_disk_comes_again(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    shutil.copy(folder / "checkpoint" / "previous.pt", folder / "checkpoint" / "last.pt")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    assert code_of(start(folder, "--resume")) == 0
    assert differences(folder, whole) == []
    assert [row["epochs"] for row in read_metrics(folder)] == [0, 1, 2]


def test_a_checkpoint_folder_is_made_again_but_not_a_run(tmp_path):
    record = RunRecord(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        Checkpoints(record.checkpoints).save({"network": {}, "progress": {}}, False)
    record.folder.mkdir()
    Checkpoints(record.checkpoints).save({"network": {}, "progress": {}}, False)
    assert (record.checkpoints / "last.pt").exists()
