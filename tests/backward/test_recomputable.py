"""Norms and activations from which the next layer recomputes its input: exact, and nothing kept twice."""

import copy
from itertools import chain

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward import Plan
from neq.budget import CostModel, StepSpec
from neq.networks.library_layers import LayerNorm2d
from neq.networks.neurons import NORMS, neuron_table
from neq.training.profiling import SavedBytes

SHAPE = (3, 12, 12)


class Maps(nn.Module):
    """Convolutions with a norm and an activation behind them, depthwise among them."""

    def __init__(self, norm, act):
        super().__init__()
        self.c1, self.n1, self.a1 = nn.Conv2d(3, 8, 3, stride=2), norm(), act()
        self.c2, self.n2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), norm()
        self.c3, self.a3, self.c4 = nn.Conv2d(8, 16, 1), act(), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.a1(self.n1(self.c1(x)))
        x = x + self.c4(self.a3(self.c3(self.n2(self.c2(x)))))
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """A transformer's block; windows are rolled and padded."""

    def __init__(self, fused=True):
        super().__init__()
        self.embed = nn.Linear(9, 16)
        self.n1, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.n2, self.fc1, self.act, self.fc2 = (
            nn.LayerNorm(16),
            nn.Linear(16, 32),
            nn.GELU(),
            nn.Linear(32, 16),
        )
        self.head = nn.Linear(16, 5)
        self.fused_attn = fused

    def forward(self, x, mask=None):
        x = self.embed(x.flatten(1).view(len(x), 48, 9))
        windows = F.pad(torch.roll(self.n1(x), 3, 1), (0, 0, 0, 2))
        q, k, v = self.qkv(windows).view(len(x), 50, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1) @ v
        x = x + self.proj(out.transpose(1, 2).reshape(len(x), 50, 16))[:, :48]
        x = x + self.fc2(self.act(self.fc1(self.n2(x))))
        return self.head(x.mean(1))


MAKERS = {
    "layer norm, gelu": lambda: Maps(lambda: LayerNorm2d(8), nn.GELU),
    "group norm, relu": lambda: Maps(lambda: nn.GroupNorm(2, 8), nn.ReLU),
    "group norm without affine, silu": lambda: Maps(lambda: nn.GroupNorm(2, 8, affine=False), nn.SiLU),
    "batch norm, gelu": lambda: Maps(lambda: nn.BatchNorm2d(8), lambda: nn.GELU("tanh")),
    "attention": Tokens,
    "attention by hand": lambda: Tokens(fused=False),
}


@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_gradients_and_predicted_bytes_are_exact(make, unit, norm_mode):
    torch.manual_seed(0)
    network = make().double()
    for norm in (module for module in network.modules() if isinstance(module, NORMS)):
        if norm.weight is not None:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    stock = copy.deepcopy(network).train()
    for module in stock.modules():
        if norm_mode == "frozen" and isinstance(module, nn.BatchNorm2d):
            module.eval()
    table = neuron_table(network, SHAPE, unit=unit)
    selection = {layer.name: [0, layer.neurons - 1] for layer in table.layers}
    plan = Plan(network, table, selection, norm_mode)
    images, labels = torch.randn(4, *SHAPE).double(), torch.arange(4)
    images = images.contiguous(memory_format=torch.channels_last)
    weights = chain(network.parameters(), network.buffers(), plan.parameters(), [images])
    saved = SavedBytes(weights)
    with saved.counting():
        out = plan(images)
    expected = stock(images)
    assert torch.allclose(out, expected, rtol=1e-10, atol=1e-12)
    F.cross_entropy(out, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for name, leaf in plan.named_parameters():
        right = plan.parts[name].take(stock.get_parameter(name).grad)
        assert torch.allclose(leaf.grad, right, rtol=1e-9, atol=1e-11), name
    assert (
        saved.total == CostModel(network, table, StepSpec((4,), SHAPE, norm_mode)).step(selection).saved_bytes
    )
