"""Two processes with half a batch each train as one with all of it does."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from neq.neurons import neuron_table
from neq.selective import Plan
from tests.toys import SHAPE, batch, toy

ROOT = Path(__file__).resolve().parents[2]
SELECTION = {"grouped": [1, 4], "pointwise": [0, 9, 23], "hidden": [2]}
WORKER = """
import sys, torch, torch.distributed as dist, torch.nn.functional as F
from neq.neurons import neuron_table
from neq.selective import Plan, average_gradients
from tests.selective.test_reduction import SELECTION
from tests.toys import SHAPE, batch, toy

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
network = toy()
plan = Plan(network, neuron_table(network, SHAPE), SELECTION, "frozen")
optimizer = torch.optim.SGD(plan.parameters(), lr=0.1, momentum=0.9)
sent = []
for seed in range(3):
    images, labels = (values[3 * rank : 3 * rank + 3] for values in batch(seed))
    F.cross_entropy(plan(images), labels).backward()
    sent.append(average_gradients(plan))
    optimizer.step()
    optimizer.zero_grad()
    plan.write_back()
torch.save({"network": network.state_dict(), "sent": sent}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_train_as_one_and_exchange_what_trains_alone(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path)],
            env=env,
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=120)
        assert worker.returncode == 0, error.decode()
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    network = toy()
    before = copy.deepcopy(network.state_dict())
    plan = Plan(network, neuron_table(network, SHAPE), SELECTION, "frozen")
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1, momentum=0.9)
    for seed in range(3):
        images, labels = batch(seed)
        F.cross_entropy(plan(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
    for name, value in network.state_dict().items():
        assert torch.equal(found[0]["network"][name], found[1]["network"][name]), name
        assert torch.allclose(found[0]["network"][name], value, rtol=1e-12, atol=1e-14), name
    assert not torch.equal(network.state_dict()["pointwise.weight"], before["pointwise.weight"])
    trained = sum(parameter.numel() for parameter in plan.parameters())
    assert found[0]["sent"] == [8 * trained] * 3
    assert trained < 0.3 * sum(parameter.numel() for parameter in network.parameters())
