"""Networks of timm: exact, and kept for backward no more than their chosen layers need."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan
from neq.budget import CostModel, StepSpec
from neq.networks.neurons import neuron_table
from neq.training.profiling import SavedBytes

timm = pytest.importorskip("timm")

pytestmark = pytest.mark.slow


def stock_of(network, norm_mode):
    stock = copy.deepcopy(network).train()
    for module in stock.modules():
        if norm_mode == "frozen" and isinstance(module, nn.BatchNorm2d):
            module.eval()
    return stock


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilevit_xxs"])
def test_gradients_and_cost(name, norm_mode):
    torch.manual_seed(0)
    sizes = {"img_size": 32} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=5, drop_rate=0.0, **sizes).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    table = neuron_table(network, (3, 32, 32))
    assert any(layer.kind.name == "linear" for layer in table.layers)
    chosen = torch.rand(len(table), generator=torch.Generator().manual_seed(1)) < 0.1
    selection = table.selection(chosen)
    plan, stock = Plan(network, table, selection, norm_mode), stock_of(network, norm_mode)
    images, labels = torch.randn(3, 3, 32, 32).double(), torch.tensor([1, 2, 3])
    for model in (plan, stock):
        F.cross_entropy(model(images), labels).backward()
    for name, leaf in plan.named_parameters():
        expected = plan.parts[name].take(stock.get_parameter(name).grad)
        assert torch.allclose(leaf.grad, expected, rtol=1e-9, atol=1e-11), name
    cost = CostModel(network, table, StepSpec((3,), (3, 32, 32), norm_mode))
    assert (
        cost.step(selection).training_bytes
        < 0.8 * cost.step(table.selection(torch.ones_like(chosen))).training_bytes
    )


# Of full training, where a random tenth of the parameters trains and norms are frozen.
MOST_KEPT = {
    "efficientnet_b0": 0.56,
    "regnety_002": 0.5,
    "mobilenetv4_conv_small": 0.3,
    "convnext_atto": 0.6,
    "vit_tiny_patch16_224": 0.6,
    "swin_tiny_patch4_window7_224": 0.6,
    "resnet50_gn": 1.0,
    "mobileone_s0": 1.0,
}


@pytest.mark.parametrize("name", MOST_KEPT)
def test_a_spread_selection_keeps_a_share_of_what_full_training_keeps(name):
    sizes = {"img_size": 64} if name.startswith(("vit", "swin")) else {}
    network = timm.create_model(name, num_classes=5, **sizes).to(memory_format=torch.channels_last).train()
    table = neuron_table(network, (3, 64, 64))
    chosen = torch.rand(len(table), generator=torch.Generator().manual_seed(1)) < 0.1
    cost = CostModel(network, table, StepSpec((4,), (3, 64, 64), "frozen"))
    images = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    full = SavedBytes([*network.parameters(), *network.buffers(), images])
    with full.counting():
        network(images)
    assert cost.step(table.selection(chosen)).saved_bytes < MOST_KEPT[name] * full.total
