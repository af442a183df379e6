"""Two processes with half of every batch each train as one with all of it does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from neq.networks.mcunet import MCUNet
from neq.training import restore, train
from neq.training.distributed import SINGLE_PROCESS
from tests.toys import toy
from tests.training.distributed.together import ended, start
from tests.training.runs import run_of

pytestmark = pytest.mark.slow

# A batch that does not divide by two, images for the velocity that do not, and the last batch of an
# evaluation too.
SETTINGS = {
    "norm_mode": "frozen",
    "neuron_selection": "velocity",
    "base_batch_size": 33,
    "velocity_images": 7,
    "n_epochs": 3,
}
# The same with fewer steps, of larger batches.
SHORT = {"base_batch_size": 115, "n_epochs": 2}
# Norms that see their own share of a batch.
APART = {**SETTINGS, "norm_mode": "train", "n_epochs": 1, "sync_batch_norm": False}
# One image to measure velocities on: the second process has none. And optimizer state that counts steps.
FEW = {**SETTINGS, **SHORT, "velocity_images": 1, "optimizer_name": "adam", "base_lr": 1e-3}
WORKER = """
import sys, torch
from torch import nn
from neq.training.distributed.process_group import process_group
from neq.training import train
from tests.training.runs import run_of
from tests.training.distributed.test_collectives import APART, CASES, FEW, SETTINGS
from tests.training.distributed.test_collectives import double_toy, half_of_the_batch, outcome

folder = sys.argv[1]
torch.set_num_threads(1)
with process_group() as processes:
    rank = processes.rank
    found = {
        name: outcome(f"{folder}/{name}", processes, network=network(), **settings)
        for name, (network, settings) in CASES.items()
    }
    found["resumed"] = outcome(f"{folder}/cut", processes, resume=True, network=double_toy(), **SETTINGS)
    found["apart"] = outcome(f"{folder}/apart", processes, **APART)
    found["float32"] = outcome(f"{folder}/float32", processes, **{**SETTINGS, "n_epochs": 1})
    found["apart exactly"] = outcome(f"{folder}/exactly", processes, network=double_toy(), **APART)
    found["few"] = outcome(f"{folder}/few", processes, network=double_toy(), **FEW)
    norm = nn.BatchNorm2d(3)
    norm(half_of_the_batch(rank))
    processes.average_statistics(norm, (17 / 33, 16 / 33)[rank])
    found["norm"] = norm.state_dict()
    found["sums"] = [processes.sum(rank + 1), processes.sum(torch.tensor([0.5, rank])).tolist()]
    found["mean"] = processes.mean(torch.tensor([[1.0], [float("nan")]][rank]), [3, 0][rank]).tolist()
    found["largest"] = processes.largest(10 - rank)
    processes.check_same("ones", [torch.ones(3), None, torch.ones((), dtype=torch.bool)])
    for name, value in {"a value": 1 + rank * 2**-52, "a zero": -0.0 if rank else 0.0}.items():
        try:
            processes.check_same(name, [torch.tensor([1.0, value], dtype=torch.float64)])
        except RuntimeError as error:
            found[name] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
"""


class Double(nn.Module):
    """A network in float64 that takes images in float32."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, images):
        return self.network(images.double())


def double_toy():
    return Double(toy(0, torch.float64, classes=10))


def double_mcunet():
    """Five of its blocks, with running statistics of some images, so that it learns with frozen norms too."""
    rows = ((1, 8, 1, 3), (4, 12, 2, 5), (3, 12, 1, 3), (4, 16, 2, 3), (4, 16, 1, 5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MCUNet(8, rows, 10).train()
        for _ in range(30):
            network(torch.randn(16, 3, 16, 16))
        return Double(network)


# In float32 the order of a sum, which depends on the processor, is seen in the last digits, and training
# makes much of it, most with batch statistics; hence float64. There too: weights changed by 1e-15 change the
# first digits of a deep network's losses in 20 steps with batch statistics, hence 8 of them.
MCUNET = {**SETTINGS, **SHORT, "image_size": 16}
CASES = {
    "frozen": (double_toy, SETTINGS),
    "frontier": (double_toy, {**SETTINGS, **SHORT, "norm_mode": "frontier"}),
    "train": (double_toy, {**SETTINGS, **SHORT, "norm_mode": "train"}),
    "micro-batches": (double_toy, {**SETTINGS, **SHORT, "micro_batch_size": 17}),
    "mcunet frozen": (double_mcunet, MCUNET),
    "mcunet train": (double_mcunet, {**MCUNET, "norm_mode": "train", "base_batch_size": 257}),
}


def outcome(folder, processes=SINGLE_PROCESS, resume=False, network=None, **settings):
    """What a run comes to: of each epoch what it chose and its metrics; the network; images evaluated."""
    with run_of(Path(folder), processes, network, **settings) as (run, diary):
        train(run, restore(run, run.checkpoints.load_last() if resume else None))
        metrics = [
            {
                "loss": report.metrics["train"]["train/loss"],
                "top1": report.metrics["train"]["train/top1"],
                "val_loss": report.metrics["valid"]["val/loss"],
                "test_loss": report.metrics["test"]["test/loss"],
                "test_top1": report.metrics["test"]["test/top1"],
            }
            for report in diary.reports
        ]
        return {
            "chosen": [report.chosen for report in diary.reports],
            "velocity": [report.velocity for report in diary.reports],
            "metrics": metrics,
            "network": run.network.state_dict(),
            "saved_bytes": diary.summary["saved_bytes"],
            "counts": run.data.counts,
            "share": run.data.share,
        }


def half_of_the_batch(rank):
    images = torch.randn(33, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 2
    return images[rank::2]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes have found, and their folder."""
    folder = tmp_path_factory.mktemp("together")
    with run_of(folder / "cut", network=double_toy(), **SETTINGS) as (run, diary):
        diary.epoch = lambda report: stop_before_the_last(report.epoch)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    for code, _, error in ended(start(2, WORKER, str(folder))):
        assert code == 0, error
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)], folder


def stop_before_the_last(epoch):
    if epoch == 2:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    found = {
        name: outcome(folder / name, network=network(), **settings)
        for name, (network, settings) in CASES.items()
    }
    return {**found, "resumed": found["frozen"]}


@pytest.mark.parametrize("how", [*CASES, "resumed"])
def test_two_processes_select_and_learn_as_one(together, alone, how):
    (first, second), _ = together
    epochs, alone = slice(2 if how == "resumed" else 0, 3), alone[how]
    for found in (first[how], second[how]):
        assert len(found["metrics"]) == len(alone["metrics"][epochs]) > 0
        for chosen, expected in zip(found["chosen"], alone["chosen"][epochs], strict=True):
            assert torch.equal(chosen, expected)
        for metrics, expected in zip(found["metrics"], alone["metrics"][epochs], strict=True):
            assert metrics == pytest.approx(expected, rel=1e-5)
        for name, value in alone["network"].items():
            assert torch.allclose(found["network"][name], value, rtol=1e-5, atol=1e-6), name
    assert any(not torch.equal(a, b) for a, b in zip(alone["chosen"], alone["chosen"][1:], strict=False))


def test_a_process_without_an_image_to_measure(together, tmp_path):
    (first, second), _ = together
    expected = outcome(tmp_path, network=double_toy(), **FEW)
    for found in (first["few"], second["few"]):
        assert [row.tolist() for row in found["chosen"]] == [row.tolist() for row in expected["chosen"]]
        assert torch.equal(found["velocity"][-1], first["few"]["velocity"][-1])
        assert torch.allclose(found["velocity"][-1], expected["velocity"][-1], atol=1e-5)


def test_every_image_counts_once(together):
    (first, second), _ = together
    assert first["frozen"]["share"] == 17 / 33
    assert second["frozen"]["share"] == 16 / 33
    counts = first["frozen"]["counts"]
    assert counts["test"] % 33 == 30 or counts["validation"] % 33 % 2 == 1  # shares of the last batch differ
    for metrics in first["frozen"]["metrics"]:
        hits = metrics["test_top1"] / 100 * counts["test"]
        assert hits == pytest.approx(round(hits), abs=1e-9)
        trained = counts["train"] // 33 * 33
        hits = metrics["top1"] / 100 * trained
        assert hits == pytest.approx(round(hits), abs=1e-9)


@pytest.mark.parametrize("how", [*CASES, "resumed", "apart", "float32"])
def test_all_processes_hold_the_same_to_the_last_bit(together, how):
    (first, second), _ = together
    for name, value in first[how]["network"].items():
        assert torch.equal(value, second[how]["network"][name]), name
    for one, other in zip(first[how]["velocity"], second[how]["velocity"], strict=True):
        assert torch.equal(one, other)
    assert first[how]["metrics"] == second[how]["metrics"]
    assert first[how]["saved_bytes"] == second[how]["saved_bytes"]


def test_running_statistics_are_those_of_all(together):
    (first, second), _ = together
    whole = nn.BatchNorm2d(3)
    whole(torch.cat([half_of_the_batch(0), half_of_the_batch(1)]))
    assert torch.equal(first["norm"]["running_mean"], second["norm"]["running_mean"])
    assert torch.allclose(first["norm"]["running_mean"], whole.running_mean, rtol=1e-6)
    assert torch.allclose(first["norm"]["running_var"], whole.running_var, rtol=1e-3)
    # In a run they have moved, in each process by its own share of the batches, and are the same in the end.
    moved = first["apart"]["network"]["norm1.running_mean"]
    assert not torch.allclose(moved, toy(0, torch.float32, classes=10).norm1.running_mean, atol=1e-2)
    # Frozen ones have not moved at all.
    kept = first["float32"]["network"]["norm1.running_var"]
    assert torch.equal(kept, toy(0, torch.float32, classes=10).norm1.running_var)


def test_norms_that_see_their_share_alone_learn_otherwise(together, tmp_path):
    (first, _), _ = together
    expected = outcome(tmp_path, network=double_toy(), **APART)["metrics"][0]
    apart = first["apart exactly"]["metrics"][0]
    # By far more than norms over the whole batch may differ between one process and two.
    assert any(apart[key] != pytest.approx(expected[key], rel=1e-5) for key in ("loss", "val_loss"))


def test_kept_bytes_are_those_of_the_whole_step(together, alone):
    (first, _), _ = together
    assert first["frozen"]["saved_bytes"] == pytest.approx(alone["frozen"]["saved_bytes"], rel=0.02)


def test_the_first_alone_writes(together):
    _, folder = together
    last = torch.load(folder / "frozen" / "last.pt", weights_only=True)
    assert last["progress"]["epoch"] == 3
    assert sorted(path.name for path in (folder / "frozen").iterdir()) == [
        "best.pt", "best.safetensors", "last.pt", "previous.pt",
    ]  # fmt: skip


def test_sums_and_what_differs(together):
    (first, second), _ = together
    for found in (first, second):
        assert found["sums"] == [3, [1.0, 1.0]]
        assert found["mean"] == [1.0]
        assert found["largest"] == 10
        assert found["a value"].startswith("a value differ between the processes")
        assert found["a zero"].startswith("a zero differ between the processes")


def test_a_process_alone_changes_nothing():
    value = torch.tensor([0.1])
    assert SINGLE_PROCESS.sum(value) is value
    assert SINGLE_PROCESS.mean(value, 3) is value
    assert SINGLE_PROCESS.sum(3) == SINGLE_PROCESS.largest(3) == 3
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(0.1)
    SINGLE_PROCESS.average_statistics(norm, 1.0)
    assert norm.running_mean.tolist() == torch.full((2,), 0.1).tolist()
    SINGLE_PROCESS.check_same("anything", [value])
    SINGLE_PROCESS.meet("somewhere")
