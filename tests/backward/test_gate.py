"""Products of maps and gates: their gradients, and what they keep."""

import pytest
import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from neq.backward import Plan
from neq.backward.gate import GateProduct, gated
from neq.backward.recompute import RecomputeSpec, mark_recomputable, recompute_spec
from neq.networks.neurons import neuron_table
from neq.training.profiling import SavedBytes


def tensors(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("trains", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("is_recomputed", [False, True])
def test_gradients_are_those_of_the_product(trains, is_recomputed):
    x, gates = tensors((2, 3, 4, 5), (2, 3, 1, 1))
    for each, its in zip((x, gates), trains, strict=True):
        each.requires_grad_(its)
    if is_recomputed:
        half = (x / 2).detach()
        mark_recomputable(x, RecomputeSpec((half,), lambda half: 2 * half))
    leaves = [each for each in (x, gates) if each.requires_grad]
    (weights,) = tensors((2, 3, 4, 5))
    expected = torch.autograd.grad((x * gates * weights).sum(), leaves)
    out = gated(x, gates)
    assert torch.equal(out, x * gates)
    found = torch.autograd.grad((out * weights).sum(), leaves)
    assert all(torch.allclose(*pair) for pair in zip(found, expected, strict=True))


def test_the_result_can_be_recomputed_until_it_is_changed():
    x, gates = tensors((2, 3, 4, 5), (2, 3, 1, 1))
    out = gated(x.requires_grad_(), gates.requires_grad_())
    spec = recompute_spec(out)
    assert torch.equal(spec.compute(*spec.kept), out)
    assert spec.by_channel
    with torch.no_grad():
        out += 1
    assert recompute_spec(out) is None


@pytest.mark.parametrize(
    "shapes",
    [((2, 3, 4, 5), (2, 1, 4, 5)), ((2, 3, 4, 5), (3, 1, 1)), ((2, 3, 1, 1), (2, 3, 1, 1)), ((2, 3), (2, 3))],
)
def test_other_products_are_left_to_torch(shapes):
    a, b = tensors(*shapes)
    out = GateProduct()(a.requires_grad_(), b)
    assert torch.equal(out, a * b)
    assert "MulBackward" in out.grad_fn.name()
    assert GateProduct()(a, 2.0).shape == a.shape


class Excited(nn.Module):
    """A block as of mobilenet_v3, with the gate on either side of the product."""

    def __init__(self, act, gate_first):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), act())
        self.excite = SqueezeExcitation(16, 4)
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 4)
        self.gate_first = gate_first

    def forward(self, x):
        x = self.expand(x)
        gates = self.excite._scale(x)
        x = gates * x if self.gate_first else x.mul(gates)
        return self.head(self.project(x).mean((2, 3)))


@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Hardswish, nn.SiLU])
@pytest.mark.parametrize("gate_first", [True, False])
def test_in_a_plan_the_product_keeps_at_most_one_map(norm_mode, act, gate_first):
    """Of a smooth activation's map nothing: its own backward keeps what the map is recomputed from."""
    torch.manual_seed(0)
    network = Excited(act, gate_first).double().to(memory_format=torch.channels_last)
    network.train(norm_mode == "train")
    table = neuron_table(network, (3, 8, 8))
    everything = {layer.name: torch.arange(layer.neurons) for layer in table.layers}
    plan = Plan(network, table, everything, norm_mode)
    images = tensors((4, 3, 8, 8))[0].contiguous(memory_format=torch.channels_last)
    kept, found = {}, {}
    for name, model in (("stock", network), ("plan", plan)):
        saved = SavedBytes([*network.parameters(), *network.buffers(), *plan.parameters(), images])
        with saved.counting():
            loss = nn.functional.cross_entropy(model(images), torch.arange(4))
        loss.backward()
        kept[name] = saved.total
        found[name] = {
            key: leaf.grad.clone() for key, leaf in (plan if name == "plan" else network).named_parameters()
        }
        network.zero_grad()
    for key, gradient in found["plan"].items():
        assert torch.allclose(gradient, found["stock"][key], atol=1e-12), key
    # Stock keeps three maps of 16 channels, or four; the plan the one that a smooth activation needs or, of a
    # ReLU, the product's factor. One map of 8 channels and what has no positions come on top.
    map_bytes = 4 * 16 * 8 * 8 * 8
    assert kept["stock"] >= 3 * map_bytes
    assert kept["plan"] < 2 * map_bytes
