"""Two processes that are stopped in the middle of an epoch go on from there, bit for bit."""

import pytest
import torch

from neq.training import Stopped, load_checkpoint, restore, train
from tests.faults.test_mid_epoch import Stopping
from tests.training.distributed.together import ended, start
from tests.training.runs import run_of

pytestmark = pytest.mark.slow

# Statistics of its own in each process, and dropout that each draws for itself.
# Each process has running statistics of its own within an epoch.
SETTINGS = {
    "neuron_selection": "velocity",
    "norm_mode": "train",
    "n_epochs": 3,
    "sync_batch_norm": False,
    "base_batch_size": 128,
}
WORKER = """
import shutil, sys, torch
from pathlib import Path
from torch import nn
from neq.training.distributed.process_group import process_group
from neq.training import Stopped, restore, train
from tests.faults.test_mid_epoch import Stopping
from tests.faults.test_mid_epoch_processes import SETTINGS
from tests.training.runs import run_of

folder = Path(sys.argv[1])
torch.set_num_threads(1)
found = {}


def part(name, processes, at, resume):
    with run_of(folder / name, processes, **SETTINGS) as (run, diary):
        run.network.act = nn.Sequential(nn.ReLU(), nn.Dropout(0.2))
        at = at if processes.rank == 1 else None  # one of them alone is asked
        object.__setattr__(run, "trackers", (diary, Stopping(run, at)))
        try:
            train(run, restore(run, run.checkpoints.load_last() if resume else None))
        except Stopped as stopped:
            found["number"] = stopped.number
    metrics = [(report.metrics["train"]["train/loss"], report.metrics["valid"]) for report in diary.reports]
    return metrics, run.network.state_dict(), diary.steps


with process_group() as processes:
    found["whole"] = part("whole", processes, None, False)
    first = part("parts", processes, (1, 4), False)
    if processes.is_first:
        shutil.copy(folder / "parts" / "last.pt", folder / "stopped.pt")
    processes.meet("copied")
    second = part("parts", processes, None, True)
    found["parts"] = (first[0] + second[0], second[1], first[2] + second[2])
    found["of one"] = part("one", processes, None, True)
    torch.save(found, folder / f"{processes.rank}.pt")
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    with run_of(folder / "one", **SETTINGS) as (run, diary):
        object.__setattr__(run, "trackers", (diary, Stopping(run, (1, 4))))
        with pytest.raises(Stopped):
            train(run)
    for code, _, error in ended(start(2, WORKER, str(folder))):
        assert code == 0, error
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)], folder


def test_both_stop_after_the_step_that_one_is_asked_at_and_go_on_as_if_they_had_not(together):
    found, _ = together
    for rank in range(2):
        whole, parts = found[rank]["whole"], found[rank]["parts"]
        assert found[rank]["number"] == 15
        assert len(parts[0]) == 3
        assert parts[0] == whole[0]
        assert all(torch.equal(tensor, whole[1][name]) for name, tensor in parts[1].items())
        assert parts[2] == whole[2]  # every step once


def test_one_goes_on_from_the_mid_epoch_of_two(together, tmp_path):
    """With the statistics, losses and hits of both; from there on with whole batches."""
    found, folder = together
    state = load_checkpoint(folder / "stopped.pt")
    assert state["progress"]["epoch_state"]["step"] == 5
    assert len(state["ranks"]) == 2
    seen = state["progress"]["epoch_state"]["counts"]["images"]
    with run_of(tmp_path, **SETTINGS) as (run, diary):
        train(run, restore(run, state))
    whole, metrics = found[0]["whole"][0], diary.reports[0].metrics
    assert [report.epoch for report in diary.reports] == [1, 2]
    assert seen < 5 * 128
    hits = metrics["train"]["train/top1"] / 100 * 8 * 128
    assert hits == pytest.approx(round(hits), abs=1e-6)  # every image counted once
    assert metrics["train"]["train/loss"] == pytest.approx(whole[1][0], rel=0.2)


def test_two_go_on_from_the_mid_epoch_of_one(together):
    found, _ = together
    for rank in range(2):
        metrics, _, steps = found[rank]["of one"]
        assert len(metrics) == 2
        assert steps[0][:2] == (1, 5)
    assert found[0]["of one"][0] == found[1]["of one"][0]
