"""A checkpoint that a disk has damaged is noticed, whatever bit it is, and an older one takes its place."""

import random
import shutil

import pytest
import torch

from benchmarks.kill_resume import same
from neq.training import Checkpoints, load_checkpoint, restore, train
from neq.utils.errors import UserError
from tests.training.runs import run_of, without_times


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of three epochs: its folder of checkpoints and its summary."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    with run_of(folder, neuron_selection="velocity") as (run, _):
        summary = train(run)
    return folder, summary


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_no_flipped_bit_goes_unnoticed_into_a_run(tmp_path, trained):
    path = tmp_path / "last.pt"
    whole = (trained[0] / "last.pt").read_bytes()
    state = load_checkpoint(trained[0] / "last.pt")
    draw = random.Random(0)
    refused = []
    for bit in [draw.randrange(8 * len(whole)) for _ in range(400)]:
        path.write_bytes(whole)
        flip(path, bit)
        try:
            assert same(load_checkpoint(path), state)  # it was in what pads the file
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert all("last.pt is not a readable checkpoint" in line and "\n" not in line for line in refused)


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoint")
    checkpoints.save({"network": {"w": torch.ones(1000)}, "progress": {}}, False)
    content = checkpoints.last.read_bytes()
    place = content.index(torch.ones(1000).numpy().tobytes())
    flip(checkpoints.last, 8 * (place + 2000))
    unnoticed = torch.load(checkpoints.last, weights_only=True)["network"]["w"]
    assert not torch.equal(unnoticed, torch.ones(1000))  # torch alone would go on with it
    with pytest.raises(UserError, match=r"the checksum of .* is wrong"):
        load_checkpoint(checkpoints.last)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing", "empty"])
def test_the_run_goes_on_from_the_checkpoint_before(tmp_path, trained, harm):
    folder, summary = trained
    shutil.copytree(folder, tmp_path / "checkpoint")
    last = tmp_path / "checkpoint" / "last.pt"
    if harm == "missing":
        last.unlink()
    elif harm == "flipped":
        weights = load_checkpoint(last)["network"]["head.weight"].numpy().tobytes()
        flip(last, 8 * last.read_bytes().index(weights))
    else:
        last.write_bytes(last.read_bytes()[: {"truncated": 5000, "empty": 0}[harm]])
    said = []
    with run_of(tmp_path / "checkpoint", neuron_selection="velocity") as (run, diary):
        state = run.checkpoints.load_last(said.append)
        assert state["progress"]["epoch"] == 2
        resumed = train(run, restore(run, state))
    assert len(said) == 1
    assert "resuming from previous.pt" in said[0]
    assert ("missing" if harm == "missing" else "not a readable checkpoint") in said[0]
    assert [report.epoch for report in diary.reports] == [2]
    assert without_times(resumed) == without_times(summary)


def test_where_nothing_is_whole_the_way_on_is_told(tmp_path, trained):
    shutil.copytree(trained[0], tmp_path / "checkpoint")
    for path in (tmp_path / "checkpoint").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"last\.pt is not a readable.*restore a copy, or.*--overwrite"):
        Checkpoints(tmp_path / "checkpoint").load_last()


def test_another_version_is_not_taken_for_damage(tmp_path, trained):
    shutil.copytree(trained[0], tmp_path / "checkpoint")
    torch.save({"format": 99}, tmp_path / "checkpoint" / "last.pt")
    with pytest.raises(UserError, match="this version reads"):
        Checkpoints(tmp_path / "checkpoint").load_last()


def test_what_reads_otherwise_than_it_was_written_raises(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"network": {"w": torch.ones(1)}, "progress": {}}, False)
    real = type(tmp_path).read_bytes
    monkeypatch.setattr(type(tmp_path), "read_bytes", lambda path: real(path)[:-1] + b"x")
    with pytest.raises(OSError, match=r"reads back differently from what was written: .*last\.pt"):
        checkpoints.save({"network": {"w": torch.zeros(1)}, "progress": {}}, False)
    monkeypatch.undo()
    assert load_checkpoint(checkpoints.last)["network"]["w"].item() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
