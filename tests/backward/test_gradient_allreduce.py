"""Two processes with a share of a batch each train as one with all of it does."""

import copy

import pytest
import torch
import torch.nn.functional as F

from neq.backward import Plan
from neq.networks.neurons import neuron_table
from tests.forked import ROOT, Forked
from tests.toys import SHAPE, batch, toy
from tests.training.distributed.together import ended

pytestmark = pytest.mark.slow

SELECTION = {"grouped": [1, 4], "pointwise": [0, 9, 23], "hidden": [2]}
# Norm mode, and whether the network is run layer by layer.
CASES = [("frozen", False), ("train", False), ("frontier", False), ("train", True)]
SHARES = (4, 2)  # of 6 images
WORKER = """
import sys, torch, torch.distributed as dist
from tests.backward.test_gradient_allreduce import CASES, trained

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.save([trained(*case, rank) for case in CASES], f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def trained(norm_mode, layer_by_layer, rank=None):
    """Three steps of the toy network: its tensors, what was sent, and what was trained."""
    import torch.distributed as dist

    from neq.backward import SyncBatchStats, average_gradients

    part, share, shared = slice(None), 1.0, None
    if rank is not None:
        part, share = (slice(0, 4), slice(4, 6))[rank], SHARES[rank] / 6

        def summed(values):
            dist.all_reduce(values)
            return values

        shared = SyncBatchStats(summed, share)
    network = toy()
    if layer_by_layer:
        network.register_forward_hook(lambda *_: None)
    plan = Plan(network, neuron_table(network, SHAPE), SELECTION, norm_mode, batch=shared)
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1, momentum=0.9)
    sent = []
    for seed in range(3):
        images, labels = (values[part] for values in batch(seed))
        F.cross_entropy(plan(images), labels).backward()
        if rank is not None:
            sent.append(average_gradients(plan, share))
        optimizer.step()
        optimizer.zero_grad()
        plan.write_back()
    count = sum(parameter.numel() for parameter in plan.parameters())
    return {"network": copy.deepcopy(network.state_dict()), "sent": sent, "trained": count}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    workers = [
        Forked(WORKER, str(rank), str(folder), cwd=ROOT, env={"GLOO_SOCKET_IFNAME": "lo"})
        for rank in range(2)
    ]
    for code, _, error in ended(workers):
        assert code == 0, error
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(together, case):
    at = CASES.index(case)
    alone, before = trained(*case), toy().state_dict()
    for name, value in alone["network"].items():
        assert torch.equal(together[0][at]["network"][name], together[1][at]["network"][name]), name
        assert torch.allclose(together[0][at]["network"][name], value, rtol=1e-12, atol=1e-14), name
    assert not torch.equal(alone["network"]["pointwise.weight"], before["pointwise.weight"])
    moved = not torch.equal(alone["network"]["norm1.running_var"], before["norm1.running_var"])
    assert moved == (case[0] != "frozen")


def test_what_trains_alone_is_exchanged(together):
    found = together[0][CASES.index(("frozen", False))]
    assert found["sent"] == [8 * found["trained"]] * 3
    assert found["trained"] < 0.3 * sum(parameter.numel() for parameter in toy().parameters())
