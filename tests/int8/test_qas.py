"""Quantization-aware scaling, and codes that never leave their range."""

import copy

import pytest
import torch
import torch.nn.functional as F

from neq.backward import Plan
from neq.int8 import Int8Network, attach
from neq.networks import neuron_table
from tests.int8.reference import latent
from tests.int8.toys import description, images

SHAPE = (3, 16, 16)
SELECTION = {
    "blocks.0.pointwise2": [1, 2],
    "blocks.1.depthwise": [2, 9],
    "blocks.1.pointwise2": list(range(8)),
}
OPTIMIZERS = {
    "sgd": lambda leaves: torch.optim.SGD(leaves, lr=0.01),
    "momentum": lambda leaves: torch.optim.SGD(leaves, lr=0.01, momentum=0.9),
    "adam": lambda leaves: torch.optim.Adam(leaves, lr=0.5),
    "adamw": lambda leaves: torch.optim.AdamW(leaves, lr=0.5),
}


@pytest.fixture
def network(tmp_path):
    made = Int8Network(description(tmp_path))
    made.load_state_dict(latent(description(tmp_path)), strict=False)
    return made


def one_step(network, optimizer, plan):
    labels = torch.arange(6) % 5
    F.cross_entropy(plan(images(6)), labels).backward()
    gradients = {name: leaf.grad.clone() for name, leaf in plan.named_parameters()}
    optimizer.step()
    scaled = {name: leaf.grad.clone() for name, leaf in plan.named_parameters()}
    optimizer.zero_grad()
    plan.write_back()
    return gradients, scaled


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_gradients_are_divided_by_the_squared_scales_of_their_slices(network, unit):
    plan = Plan(
        network, neuron_table(network, SHAPE, unit=unit), SELECTION, bias_layers=("blocks.1.pointwise1",)
    )
    optimizer = torch.optim.SGD(plan.parameters(), lr=1e-6)
    attach(optimizer, plan)
    gradients, scaled = one_step(network, optimizer, plan)
    assert len(gradients) >= 6
    for name, gradient in gradients.items():
        owner, _, key = name.rpartition(".")
        module, part = network.get_submodule(owner), plan.parts[name]
        if owner == "classifier":
            assert torch.equal(scaled[name], gradient)
            continue
        scale = module.scales.double() * (module.inputs[0].scale if key == "bias" else 1.0)
        if part.index is not None and part.axis == 0:
            scale = scale[part.index]
        scale = scale.view(-1, *[1] * (gradient.dim() - 1))
        torch.testing.assert_close(scaled[name].double(), gradient.double() / scale**2, rtol=1e-5, atol=0)


def test_a_real_weight_moves_as_in_floating_point(network):
    """A step of SGD moves W = q s by lr dL/dW, where dL/dq = s dL/dW."""
    plan = Plan(network, neuron_table(network, SHAPE), {"blocks.1.pointwise2": list(range(8))})
    conv = network.get_submodule("blocks.1.pointwise2")
    before, scale = conv.weight.detach().double(), conv.scales.double().view(-1, 1, 1, 1)
    optimizer = torch.optim.SGD(plan.parameters(), lr=1e-3)
    attach(optimizer, plan)
    gradients, _ = one_step(network, optimizer, plan)
    moved = (conv.weight.detach().double() - before) * scale
    expected = -1e-3 * gradients["blocks.1.pointwise2.weight"].double() / scale
    inside = (conv.weight.detach().abs() < 127) & (moved != 0)
    assert inside.any()
    torch.testing.assert_close(moved[inside], expected[inside], rtol=0.05, atol=1e-6)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("qas", [False, True])
def test_trained_codes_never_leave_their_range(network, make, qas):
    with torch.no_grad():  # as of a dead channel
        network.get_submodule("blocks.1.depthwise").scales[2] = 3.9e-9
    plan = Plan(network, neuron_table(network, SHAPE), SELECTION, bias_layers=("blocks.1.pointwise1",))
    optimizer = make(plan.parameters())
    for group in optimizer.param_groups:
        group["lr"] = 1e3
    attach(optimizer, plan, qas)
    touched = False
    for _ in range(4):
        one_step(network, optimizer, plan)
        for conv in (network.get_submodule(name) for name in SELECTION):
            assert float(conv.weight.detach().abs().max()) <= 127
            touched |= float(conv.weight.detach().abs().max()) == 127
            assert bool(conv.bias.isfinite().all())
            assert float(conv.bias.detach().abs().max()) <= 2**31
    assert touched
    assert bool(network(images()).isfinite().all())


def test_plain_steps_that_change_no_code_change_some_with_the_scaling(network):
    codes = {}
    for qas in (False, True):
        trained = copy.deepcopy(network)
        plan = Plan(trained, neuron_table(trained, SHAPE), SELECTION)
        optimizer = torch.optim.SGD(plan.parameters(), lr=0.3)
        attach(optimizer, plan, qas)
        one_step(trained, optimizer, plan)
        pairs = zip(network.describe().convs, trained.describe().convs, strict=True)
        codes[qas] = sum(int((a.weight != b.weight).sum()) for a, b in pairs)
    assert codes[False] == 0
    assert codes[True] > 0


def test_other_networks_are_left_as_they_are():
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2))
    plan = Plan(plain, neuron_table(plain, (3, 8, 8)), {"0": [1]})
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1)
    attach(optimizer, plan)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
