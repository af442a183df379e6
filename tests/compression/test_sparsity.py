import pytest
import torch
from torch import nn

import neq
from neq.backward import Plan
from neq.compression import Compressed, sparsify
from neq.compression.sparsity import keep_zeros, trained_weights
from neq.config import resolve
from neq.networks.recipe import Recipe
from neq.training.optimizer import make_optimizer


def start():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)
    ).eval()
    return Compressed(network, Recipe("toy", 3, "5"))


def zeros(network):
    weights = torch.cat([network[0].weight.flatten(), network[3].weight.flatten()])
    return float((weights == 0).double().mean())


def test_half_twice_leaves_a_quarter():
    once = sparsify(start(), 0.5)
    twice = sparsify(once, 0.5)
    assert zeros(once.network) == pytest.approx(0.5, abs=1e-3)
    assert zeros(twice.network) == pytest.approx(0.75, abs=1e-3)
    assert not zeros(start().network)
    assert (once.network[5].weight != 0).all()


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_are_zero(scope):
    before, after = start().network, sparsify(start(), 0.4, scope).network
    weights = [before[0].weight, before[3].weight]
    left = [after[0].weight != 0, after[3].weight != 0]
    if scope == "global":
        weights, left = [torch.cat([w.flatten() for w in weights])], [torch.cat([m.flatten() for m in left])]
    for weight, mask in zip(weights, left, strict=True):
        assert weight[mask].abs().min() > weight[~mask].abs().max()
        assert float(mask.double().mean()) == pytest.approx(0.6, abs=5e-3)


@pytest.mark.parametrize("chosen", ["all", "some"])
@pytest.mark.parametrize("optimizer_name", ["sgd", "adam"])
def test_zeros_stay_zeros_in_training(optimizer_name, chosen):
    network = sparsify(start(), 0.5).network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    table = neq.neuron_table(network, (3, 8, 8))
    neurons = torch.arange(8) if chosen == "all" else torch.tensor([1, 4])
    plan = Plan(network, table, {"0": neurons, "3": neurons})
    config = resolve({}, {"optimizer_name": optimizer_name, "momentum": 0.9} if optimizer_name == "sgd" else
                     {"optimizer_name": optimizer_name}).config  # fmt: skip
    optimizer = make_optimizer(plan, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for _ in range(3):
        optimizer.zero_grad()
        plan(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        plan.write_back()
    for name in ("0.weight", "3.weight"):
        old, new = before[name], network.state_dict()[name]
        assert (new[old == 0] == 0).all()
        moved = (new != old).flatten(1).any(1)
        assert moved.nonzero().flatten().tolist() == neurons.tolist()
    assert (network[5].weight != before["5.weight"]).any()


def test_a_weight_that_becomes_zero_in_training_goes_on_training():
    network = sparsify(start(), 0.5).network
    table = neq.neuron_table(network, (3, 8, 8))
    zero = network[0].weight == 0
    for first in (True, False):  # two epochs
        plan = Plan(network, table, {"0": torch.arange(8), "3": torch.tensor([2])})
        optimizer = torch.optim.SGD(plan.parameters(), lr=0.1)
        keep_zeros(optimizer, plan, resolve({}, {}).config)
        plan(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        plan.write_back()
        if first:
            with torch.no_grad():
                network[0].weight.zero_()
    assert torch.equal(network[0].weight == 0, zero)
    again = sparsify(Compressed(network, Recipe("toy", 3, "5")), 0.5).network  # of what is left now
    plan = Plan(again, table, {"0": torch.arange(8)})
    keep_zeros(torch.optim.SGD(plan.parameters(), lr=0.1), plan, resolve({}, {}).config)
    assert set(trained_weights(again)) == {"0.weight", "3.weight"}
    assert (again[0].weight != 0).sum() < (~zero).sum()
    assert torch.equal(trained_weights(again)["0.weight"], again[0].weight != 0)


@pytest.mark.parametrize("step", ["attention", "low_rank", "prune"])
def test_a_sparse_network_that_is_changed_again_still_trains(step):
    from neq.compression import add_attention, low_rank, prune
    from neq.networks.build import build_network
    from neq.networks.recipe import named_recipe

    network = build_network("mcunet-in0", 4, weights="none").eval()
    begun = sparsify(Compressed(network, named_recipe("mcunet-in0", network, 4)), 0.5)
    trained_weights(begun.network)
    image = torch.zeros(1, 3, 32, 32)
    layer = next(iter(begun.recipe.transforms[-1].arguments["layers"]))
    if step == "attention":
        made = add_attention(begun, image, "se", [layer])
        assert f"{layer}.layer.weight" in trained_weights(made.network)
    elif step == "low_rank":
        pytest.importorskip("tensorly")
        made = low_rank(begun, 0.5)
        assert 0 < len(trained_weights(made.network)) < len(trained_weights(begun.network))
    else:
        pytest.importorskip("torch_pruning")
        made = prune(begun, image, 0.5)
    for name, mask in trained_weights(made.network).items():
        assert torch.equal(mask, made.network.get_parameter(name) != 0)


def test_other_networks_are_left_alone():
    network = start().network
    with torch.no_grad():
        network[0].weight[:, 0] = 0
    plan = Plan(network, neq.neuron_table(network, (3, 8, 8)), {"0": torch.arange(8)})
    optimizer = torch.optim.SGD(plan.parameters(), lr=0.1)
    keep_zeros(optimizer, plan, resolve({}, {}).config)
    plan(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    plan.write_back()
    assert (network[0].weight[:, 0] != 0).any()


def test_blocks_that_start_at_zero_and_the_head_are_trained():
    from neq.compression import add_attention
    from neq.networks.build import build_network
    from neq.networks.recipe import named_recipe

    network = build_network("mcunet-in0", 4, weights="none").eval()
    begun = Compressed(network, named_recipe("mcunet-in0", network, 4))
    image = torch.zeros(1, 3, 32, 32)
    made = sparsify(add_attention(begun, image, "se", ["blocks.2"]), 0.5)
    with torch.no_grad():
        made.head.weight[0] = 0
    table = neq.neuron_table(made.network, (3, 32, 32), head=made.recipe.head)
    plan = Plan(made.network, table, {layer.name: torch.arange(layer.neurons) for layer in table.layers})
    optimizer = make_optimizer(plan, resolve({}, {}).config)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    plan(torch.randn(4, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    plan.write_back()
    assert made.network.get_submodule("blocks.2.attention.expand").weight.any()
    assert made.head.weight[0].any()
    assert "blocks.2.attention.expand" not in made.recipe.transforms[-1].arguments["layers"]
