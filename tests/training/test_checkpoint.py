import pickle

import pytest
import safetensors.torch
import torch

from neq.training import Checkpoints, load_checkpoint, train
from neq.utils.errors import UserError
from tests.toys import toy
from tests.training.runs import run_of


def test_files_load_safely_and_strictly(tmp_path):
    with run_of(tmp_path, neuron_selection="velocity") as (run, _):
        train(run)
    for name in ("last.pt", "best.pt"):
        state = torch.load(tmp_path / name, weights_only=True)
        toy(dtype=torch.float32, classes=10).load_state_dict(state["network"], strict=True)
    weights = safetensors.torch.load_file(tmp_path / "best.safetensors")
    plain = toy(dtype=torch.float32, classes=10)
    plain.load_state_dict(weights, strict=True)
    best = torch.load(tmp_path / "best.pt", weights_only=True)["network"]
    assert all(torch.equal(best[name], tensor) for name, tensor in weights.items())


def test_only_a_best_epoch_touches_the_best_files(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for value, is_best in ((1.0, True), (2.0, False)):
        checkpoints.save({"network": {"w": torch.tensor([value])}, "progress": {}}, is_best)
    assert load_checkpoint(checkpoints.best)["network"]["w"].item() == 1
    assert load_checkpoint(checkpoints.last)["network"]["w"].item() == 2
    assert load_checkpoint(checkpoints.previous)["network"]["w"].item() == 1
    names = ["best.pt", "best.safetensors", "last.pt", "previous.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_failed_write_raises_and_keeps_the_former_file(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"network": {"w": torch.ones(1)}, "progress": {}}, False)

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save({"network": {"w": torch.zeros(1)}, "progress": {}}, False)
    assert load_checkpoint(checkpoints.last)["network"]["w"].item() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_no_checkpoint_is_no_error(tmp_path):
    assert Checkpoints(tmp_path / "nothing").load_last() is None


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", pickle.dumps(Malicious()), pickle.dumps({"format": 1})],
    ids=["empty", "text", "malicious", "pickle"],
)
def test_a_damaged_or_malicious_file_is_refused(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt is not a readable checkpoint"):
        load_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"network": {"w": torch.ones(1000)}, "progress": {}}, False)
    content = checkpoints.last.read_bytes()
    checkpoints.last.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoints.load_last()


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="this version reads"):
        load_checkpoint(tmp_path / "last.pt")
