import io
import pickle

import pytest
import safetensors.torch
import torch

from neq.budget import Allocation
from neq.training import Checkpoints, Stopped, load_checkpoint, restore, train
from neq.training.distributed import SINGLE_PROCESS
from neq.training.epoch_state import EpochState
from neq.training.rank_state import restore_rank
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


def of_format_1(state):
    """A checkpoint under the names of format 1."""
    progress = dict(state["progress"])
    del progress["task_optimizer"]
    if (epoch_state := progress.pop("epoch_state")) is not None:
        epoch_state = {**epoch_state, **epoch_state["counts"]}
        del epoch_state["counts"]
    ranks = {"own": state["ranks"]} if "ranks" in state else {}
    return {
        "format": 1,
        "network": state["network"],
        "progress": {**progress, "so_far": epoch_state},
        **ranks,
    }


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(1, 4), (0, 34)], ids=["in mid-epoch", "after an epoch"])
def test_a_checkpoint_of_format_1_resumes_to_the_same_result(tmp_path, stop):
    settings = {"neuron_selection": "velocity", "n_epochs": 2}
    with run_of(tmp_path / "whole", **settings) as (run, _):
        whole, weights = train(run), run.network.state_dict()
    with run_of(tmp_path / "run", **settings) as (run, diary):

        def step(epoch, number, steps):
            run.stop.number = 15 if (epoch, number) == stop else 0

        diary.step = step
        with pytest.raises(Stopped):
            train(run)
        torch.save(of_format_1(load_checkpoint(run.checkpoints.last)), run.checkpoints.last)
    with run_of(tmp_path / "run", **settings) as (run, _):
        resumed = train(run, restore(run, run.checkpoints.load_last()))
    for name in ("test_top1", "val_loss", "best_epoch", "saved_bytes", "budget_used_max"):
        assert resumed[name] == whole[name]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in run.network.state_dict().items())


def test_ranks_of_format_1_are_read():
    """Two ranks' states, whose counts had no name of their own, as one process reads them."""
    network = toy(dtype=torch.float32)
    choice = Allocation(torch.ones(3, dtype=torch.bool), 1, 1, "parameters")
    ranks = []
    for hits, images, share in ((3, 20, 0.625), (2, 12, 0.375)):
        file = io.BytesIO()
        state = {
            "losses": torch.full((4,), float(hits)),
            "hits": torch.tensor(hits),
            "images": images,
            "random": None,
            "seconds": [1.0],
            "share": share,
            "buffers": dict(network.named_buffers()),
        }
        torch.save(state, file)
        ranks.append(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))
    epoch_state = EpochState.start(choice, 4, torch.device("cpu"))
    restore_rank(ranks, network, epoch_state, SINGLE_PROCESS, 0, 0)
    assert {name: int(value) for name, value in epoch_state.counts.items()} == {"hits": 5, "images": 32}
    assert epoch_state.losses.tolist() == [0.625 * 3 + 0.375 * 2] * 4


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="this version reads"):
        load_checkpoint(tmp_path / "last.pt")
