"""Two processes with half of every batch each train an int8 network as one does."""

from pathlib import Path

import pytest
import torch
from torch import nn

import neq.int8.training  # noqa: F401  # registers the scaling
from neq.int8 import Int8Conv, Int8Network
from neq.networks.heads import replace_head
from neq.training import train
from neq.training.distributed import SINGLE_PROCESS
from tests.int8.toys import description
from tests.training.distributed.together import ended, start
from tests.training.runs import run_of

pytestmark = pytest.mark.slow

# In float32 the order of a gradient's sum is seen in its last digits, which may decide on a code.
SETTINGS = {
    **{"neuron_selection": "velocity", "norm_mode": "frozen", "base_batch_size": 255, "n_epochs": 3},
    **{"ratio": 0.5, "momentum": 0.9, "weight_decay": 0.0},
}
WORKER = """
import sys, torch
from neq.training.distributed.process_group import process_group
from tests.int8.test_processes import outcome

folder = sys.argv[1]
torch.set_num_threads(1)
with process_group() as processes:
    found = outcome(f"{folder}/run", processes)
    torch.save(found, f"{folder}/{processes.rank}.pt")
"""


class Double(nn.Module):
    """An int8 network whose gradients are float64."""

    def __init__(self, network):
        super().__init__()
        self.network = network.double()

    def forward(self, images):
        return self.network(images.double())


def toy(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    made = Int8Network(description(Path(folder)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        replace_head(made, 10)
    return Double(made)


def outcome(folder, processes=SINGLE_PROCESS):
    """Losses, choices and the state of the network after a run."""
    network = toy(f"{folder}-{processes.rank}")
    with run_of(Path(folder), processes, network, **SETTINGS) as (run, diary):
        train(run)
        losses = [report.metrics["train"]["train/loss"] for report in diary.reports]
        chosen = [report.chosen for report in diary.reports]
        return {"losses": losses, "chosen": chosen, "network": run.network.state_dict()}


def test_two_processes_learn_as_one(tmp_path):
    for code, _, error in ended(start(2, WORKER, str(tmp_path))):
        assert code == 0, error
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = outcome(tmp_path / "alone")
    for name, value in alone["network"].items():
        assert torch.equal(first["network"][name], second["network"][name]), name
        assert torch.allclose(first["network"][name], value, rtol=1e-6, atol=1e-6), name
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], rel=1e-6)
    for found, expected in zip(first["chosen"], alone["chosen"], strict=True):
        assert torch.equal(found, expected)
    before = toy(tmp_path / "start")
    moved = [
        (module.codes()[0] != before.get_submodule(name).codes()[0]).any()
        for name, module in _trained(alone, tmp_path).named_modules()
        if isinstance(module, Int8Conv)
    ]
    assert sum(map(int, moved)) > 1


def _trained(found, folder):
    network = toy(folder / "again")
    network.load_state_dict(found["network"])
    return network
