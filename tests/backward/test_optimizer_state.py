import copy

import pytest
import torch
import torch.nn.functional as F

from neq.backward import Plan, carry_optimizer_state, optimizer_state
from neq.networks.neurons import neuron_table
from tests.toys import SHAPE, batch, toy

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}


def epoch(network, table, selection, make, former=None, norm_mode="frontier", steps=4):
    """A few steps under one selection; gives the optimizer's state by name."""
    plan = Plan(network, table, {k: torch.tensor(v) for k, v in selection.items()}, norm_mode)
    optimizer = make(list(plan.parameters()))
    carry_optimizer_state(former or {}, optimizer, plan)
    for step in range(steps):
        images, labels = batch(seed=step)
        optimizer.zero_grad()
        F.cross_entropy(plan(images), labels).backward()
        optimizer.step()
        plan.write_back()
    return optimizer_state(optimizer, plan)


def moved_rows(before, network, name):
    change = (network.get_parameter(name) != before[name]).flatten(1).any(1)
    return change.nonzero().flatten().tolist()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
def test_frozen_rows_are_bit_identical(make, norm_mode):
    """Fault 2 of the published code: momentum, moments and decay move neurons whose gradient was zeroed."""
    network = toy()
    table = neuron_table(network, SHAPE)
    selections = [
        {"stem": [1, 2], "depthwise": [0, 3, 23], "hidden": [5]},
        {"stem": [2, 7], "grouped": [4], "hidden": [0, 5, 15]},
        {"depthwise": [3], "pointwise": list(range(24))},
    ]
    former = None
    for selection in selections:
        before = copy.deepcopy(network.state_dict())
        former = epoch(network, table, selection, make, former, norm_mode)
        for layer in table.layers:
            assert moved_rows(before, network, f"{layer.name}.weight") == selection.get(layer.name, [])
            if f"{layer.name}.bias" in before:
                bias = network.get_parameter(f"{layer.name}.bias") != before[f"{layer.name}.bias"]
                assert bias.nonzero().flatten().tolist() == selection.get(layer.name, [])


def test_the_masked_simulation_of_the_published_code_moves_frozen_rows():
    """The fault itself, so that the test above is known to be able to fail."""
    network = toy().train()
    optimizer = OPTIMIZERS["sgd"](network.parameters())
    for step, frozen in enumerate([(), (1, 2, 3)]):
        before = network.stem.weight.detach().clone()
        images, labels = batch(seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        network.stem.weight.grad[list(frozen)] = 0
        optimizer.step()
    assert (network.stem.weight[1] != before[1]).any()


def test_momentum_of_rows_that_stay_is_carried_and_of_others_dropped():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"stem": torch.tensor([1, 4])})
    sgd = OPTIMIZERS["sgd"]
    former = epoch(network, table, {"stem": [1, 4]}, sgd)
    buffer = former["stem.weight"]["state"]["momentum_buffer"]
    plan = Plan(network, table, {"stem": torch.tensor([0, 4])})
    optimizer = sgd(list(plan.parameters()))
    carry_optimizer_state(former, optimizer, plan)
    leaves = dict(plan.named_parameters())
    carried = optimizer.state[leaves["stem.weight"]]["momentum_buffer"]
    assert torch.equal(carried[1], buffer[1])
    assert not carried[0].any()
    head = optimizer.state[leaves["head.weight"]]["momentum_buffer"]
    assert torch.equal(head, former["head.weight"]["state"]["momentum_buffer"])


def test_momentum_moves_between_all_rows_and_some():
    network = toy()
    table = neuron_table(network, SHAPE)
    sgd = OPTIMIZERS["sgd"]
    former = epoch(network, table, {"hidden": list(range(16))}, sgd)
    whole = former["hidden.weight"]["state"]["momentum_buffer"]
    some = epoch(network, table, {"hidden": [3, 9]}, sgd, former, steps=0)
    kept = some["hidden.weight"]["state"]["momentum_buffer"]
    assert torch.equal(kept, whole[[3, 9]])
    back = epoch(network, table, {"hidden": list(range(16))}, sgd, some, steps=0)
    again = back["hidden.weight"]["state"]["momentum_buffer"]
    assert torch.equal(again[[3, 9]], kept)
    assert not again[[0, 1, 15]].any()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_row_that_enters_late_moves_no_further_than_under_a_fresh_optimizer(name):
    network = toy()
    table = neuron_table(network, SHAPE)
    make = OPTIMIZERS[name]
    former = epoch(network, table, {"pointwise": [1, 2]}, make, steps=300)
    fresh = copy.deepcopy(network)
    moved = []
    for net, carried in ((network, former), (fresh, None)):
        start = net.pointwise.weight.detach().clone()
        epoch(net, table, {"pointwise": [2, 3]}, make, carried, norm_mode="frozen", steps=1)
        moved.append(float((net.pointwise.weight.detach() - start).abs()[3].max()))
    late, afresh = moved
    assert 0 < late <= afresh * (1 + 1e-9)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_an_unchanged_set_keeps_its_step_count(name):
    network = toy()
    table = neuron_table(network, SHAPE)
    make = OPTIMIZERS[name]
    former = epoch(network, table, {"pointwise": [1, 2], "stem": [0]}, make)
    later = epoch(network, table, {"pointwise": [1, 2], "stem": [1]}, make, former)
    assert later["pointwise.weight"]["state"]["step"] == 8
    assert later["stem.weight"]["state"]["step"] == 4
    assert later["head.weight"]["state"]["step"] == 8


def test_state_that_comes_from_another_device_moves_to_the_parameters():
    """A checkpoint is read onto the CPU; the plan may be elsewhere. The meta device stands for CUDA here."""
    network = toy()
    table = neuron_table(network, SHAPE)
    for make in OPTIMIZERS.values():
        former = epoch(network, table, {}, make)
        elsewhere = copy.deepcopy(network).to("meta")
        plan = Plan(elsewhere, table, {})
        optimizer = make(list(plan.parameters()))
        carry_optimizer_state(former, optimizer, plan)
        kinds = {
            value.device.type
            for state in optimizer.state.values()
            for key, value in state.items()
            if key != "step"
        }
        assert kinds == {"meta"}


@pytest.mark.parametrize("kind", ["fused", "data"])
def test_write_back_sees_steps_that_leave_no_trace(kind):
    """Fused optimizers, and those that write to .data, do not move a tensor's version."""
    network = toy(dtype=torch.float32)
    table = neuron_table(network, SHAPE)
    before = network.pointwise.weight.detach().clone()
    plan = Plan(network, table, {"pointwise": [3, 5]})
    images, labels = batch(dtype=torch.float32)
    F.cross_entropy(plan(images), labels).backward()
    if kind == "fused":
        torch.optim.Adam(list(plan.parameters()), lr=0.1, fused=True).step()
    else:
        for parameter in plan.parameters():
            parameter.data.add_(parameter.grad, alpha=-0.1)
    plan.write_back()
    moved = (network.pointwise.weight != before).flatten(1).any(1)
    assert moved.nonzero().flatten().tolist() == [3, 5]


def test_a_network_that_someone_else_changed_is_taken_over():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"pointwise": [3, 5]})
    optimizer = OPTIMIZERS["sgd"](list(plan.parameters()))
    other = toy(seed=1).state_dict()
    network.load_state_dict(other)
    images, labels = batch()
    F.cross_entropy(plan(images), labels).backward()
    for group in optimizer.param_groups:
        group["lr"] = 1e-9
    optimizer.step()
    plan.write_back()
    assert torch.allclose(network.pointwise.weight, other["pointwise.weight"], rtol=0, atol=1e-6)
    assert not torch.equal(network.pointwise.weight[3], other["pointwise.weight"][3])


def test_gradients_of_what_no_longer_trains_are_dropped():
    network = toy()
    table = neuron_table(network, SHAPE)
    images, labels = batch()
    for selection, norm_mode in (({"stem": range(8)}, "train"), ({"hidden": [1]}, "frozen")):
        plan = Plan(network, table, selection, norm_mode)
        F.cross_entropy(plan(images), labels).backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"head.weight", "head.bias"}


def test_gradients_accumulate_over_several_forward_passes():
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"stem": [1], "pointwise": [3, 5]}, "frozen")
    halves = [batch(seed) for seed in (0, 1)]
    losses = [F.cross_entropy(plan(images), labels) for images, labels in halves]
    (losses[0] + losses[1]).backward()
    together = [parameter.grad.clone() for parameter in plan.parameters()]
    plan = Plan(network, table, {"stem": [1], "pointwise": [3, 5]}, "frozen")
    for parameter in plan.parameters():
        parameter.grad = None
    for images, labels in halves:
        F.cross_entropy(plan(images), labels).backward()
    assert all(
        torch.allclose(a, parameter.grad, rtol=1e-9, atol=1e-12)
        for a, parameter in zip(together, plan.parameters(), strict=True)
    )


CHANGES = {
    "in place": lambda module, new: module.weight.data.copy_(new.weight.data),
    "data": lambda module, new: setattr(module.weight, "data", new.weight.data.clone()),
    "assigned": lambda module, new: module.load_state_dict(new.state_dict(), assign=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("selection", [{"stem": [1], "pointwise": [3, 5]}, {"pointwise": range(24)}])
def test_changes_that_leave_no_trace_are_taken_over(change, selection):
    """Of chosen, frozen and whole layers: training goes on from the changed network."""
    network, stock = toy(), toy()
    plan = Plan(network, neuron_table(network, SHAPE), selection, "frozen")
    stock.eval()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (plan, stock)]
    other = toy(seed=1)
    plan(batch()[0])
    for model in (network, stock):
        for name in ("stem", "grouped", "pointwise", "head"):
            change(model.get_submodule(name), other.get_submodule(name))
    if change is CHANGES["assigned"]:
        optimizers[1] = torch.optim.SGD(stock.parameters(), lr=0.1)
    images, labels = batch()
    for model, optimizer in zip((plan, stock), optimizers, strict=True):
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    plan.write_back()
    for name, part in plan.parts.items():
        mine, right = (part.take(model.get_parameter(name)) for model in (network, stock))
        assert torch.allclose(mine, right, rtol=1e-9, atol=1e-12), name
    assert torch.equal(network.grouped.weight, other.grouped.weight)


def closure_of(plan, optimizer):
    def closure():
        optimizer.zero_grad()
        images, labels = batch()
        loss = F.cross_entropy(plan(images), labels)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("make", [torch.optim.LBFGS, torch.optim.Adafactor])
@pytest.mark.parametrize("later", [{"stem": [1, 3], "pointwise": [3]}, {"stem": [1, 2], "pointwise": [3]}])
def test_state_that_belongs_to_no_channel_starts_afresh(make, later):
    network = toy()
    table = neuron_table(network, SHAPE)
    plan = Plan(network, table, {"stem": [1, 2], "hidden": [3]}, "frozen")
    optimizer = make(list(plan.parameters()))
    optimizer.step(closure_of(plan, optimizer))
    plan.write_back()
    after = Plan(network, table, later, "frozen")
    fresh = make(list(after.parameters()))
    carry_optimizer_state(optimizer_state(optimizer, plan), fresh, after)
    carried = set(optimizer_state(fresh, after))
    same = {"head.weight", "head.bias"} | ({"stem.weight"} if later["stem"] == [1, 2] else set())
    assert carried == (set() if make is torch.optim.LBFGS else same)
    before = closure_of(after, fresh)()
    fresh.step(closure_of(after, fresh))
    assert closure_of(after, fresh)() < before
