"""bf16 autocast through the plan: as close to the exact gradients as stock PyTorch under autocast is."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan
from neq.networks.neurons import neuron_table
from tests.toys import NETWORKS

pytestmark = pytest.mark.slow

LABELS = torch.arange(8) % 5


def gradients(model, network, images, half):
    network.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = model(images)
    F.cross_entropy(outputs.to(images.dtype), LABELS).backward()
    named = model.named_parameters() if isinstance(model, Plan) else network.named_parameters()
    return {name: leaf.grad.double() for name, leaf in named if leaf.grad is not None}


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize("name", NETWORKS)
def test_errors_are_those_of_stock_autocast(name, norm_mode):
    torch.manual_seed(0)
    network = NETWORKS[name](num_classes=5).to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    images = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():  # running statistics that fit
        network.train()(images)
    table = neuron_table(network, (3, 32, 32))
    chosen = torch.rand(len(table), generator=torch.Generator().manual_seed(1)) < 0.2
    selection = table.selection(chosen)

    def stock(of):
        made = copy.deepcopy(of).train()
        for module in made.modules():
            if norm_mode == "frozen" and isinstance(module, nn.BatchNorm2d):
                module.eval()
        return made

    exact_network = stock(network).double()
    exact = gradients(exact_network, exact_network, images.double(), half=False)
    theirs_network = stock(network)
    theirs = gradients(theirs_network, theirs_network, images, half=True)
    plan = Plan(network, table, selection, norm_mode)
    ours = gradients(plan, network, images, half=True)
    overall = torch.stack([gradient.norm() for gradient in exact.values()]).norm()

    def error(found, name):
        right = plan.parts[name].take(exact[name])
        return float((found - right).norm() / max(right.norm(), 1e-2 * overall))

    our_errors = sorted(error(ours[name], name) for name in ours)
    their_errors = sorted(error(plan.parts[name].take(theirs[name]), name) for name in ours)
    assert all(torch.isfinite(gradient).all() for gradient in ours.values())
    middle = len(our_errors) // 2
    assert our_errors[middle] <= 1.5 * their_errors[middle] + 2e-2
    assert our_errors[-1] <= 2 * their_errors[-1] + 2e-2
