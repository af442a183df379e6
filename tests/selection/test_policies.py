import copy
from dataclasses import replace

import pytest
import torch

from neq.budget import Budget, BudgetAllocator, CostModel, StepSpec
from neq.config import POLICIES
from neq.networks.build import build_network
from neq.networks.neurons import neuron_table
from neq.selection import Importance, SelectionState, StaticScheme, bias_layers, listed_parameters
from neq.utils.seeds import generator
from tests.toys import SHAPE, toy

SCHEME = StaticScheme((0, 2, 3), (0.5, 0.125, 0.0), n_bias_update=2)


def state(network=None, epoch=0, scheme=SCHEME, velocity=None, gradients=None, importance=None):
    network = network or toy()
    table = neuron_table(network, SHAPE)
    stream = generator(0, "selection", epoch)
    return SelectionState(table, network, stream, scheme, velocity, gradients, importance, layer_share=0.9)


def allocator(given, amount):
    """A budget in parameters, for which nothing but the table counts."""
    return BudgetAllocator(
        CostModel(given.network, given.table, StepSpec((2,), SHAPE)), Budget(amount=amount)
    )


def choose(name, given, amount):
    return allocator(given, amount).choose(POLICIES[name], given).chosen


def limit(name, given, amount):
    return allocator(given, amount).choose(POLICIES[name], given).limit


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.99, 1, 1.5])
def test_no_policy_exceeds_the_budget(policy, share):
    gradients = {name: parameter.detach().cos() for name, parameter in toy().named_parameters()}
    velocity = torch.linspace(-1, 1, 84, dtype=torch.float64) ** 3
    importance = Importance(velocity.abs(), torch.arange(1, 6, dtype=torch.float64))
    given = state(velocity=velocity, gradients=gradients, importance=importance)
    table = given.table
    budget = round(share * table.total_parameters)
    if policy == "SU" and share < 0.3:
        with pytest.raises(ValueError, match="more than the budget"):
            choose(policy, given, budget)
        return
    chosen = choose(policy, given, budget)
    used = int(table.parameters[chosen].sum())
    assert used <= budget
    if policy == "SU":
        assert used == listed_parameters(table, SCHEME)
        return
    eligible = POLICIES[policy].score(given) != -torch.inf
    left = eligible & ~chosen
    if left.any():
        assert budget - used < int(table.parameters[left].min())
    else:
        assert share >= 1 or not eligible.all()


def test_su_takes_the_output_neurons_with_the_largest_weights():
    """Fault 4: indices of one axis applied to another; depthwise layers break."""
    network = toy()
    with torch.no_grad():
        network.stem.weight *= torch.tensor([1, 9, 1, 9, 1, 9, 1, 9.0]).view(-1, 1, 1, 1)
        network.depthwise.weight[[4, 11, 23]] *= 50
    chosen = choose("SU", state(network), 10**9)
    selection = neuron_table(network, SHAPE).selection(chosen)
    assert {name: channels.tolist() for name, channels in selection.items()} == {
        "stem": [1, 3, 5, 7],
        "depthwise": [4, 11, 23],
    }


def test_su_indices_count_convs_only_and_must_exist():
    table = neuron_table(toy(), SHAPE)
    with pytest.raises(ValueError, match=r"names conv 4, but the network has 4 convs, 0 \.\. 3"):
        listed_parameters(table, StaticScheme((1, 4), (1, 1)))
    assert bias_layers(table, SCHEME) == ("depthwise", "pointwise")
    assert bias_layers(table, StaticScheme((), (), 9)) == ("stem", "grouped", "depthwise", "pointwise")
    assert bias_layers(table, StaticScheme((), (), 0)) == ()


@pytest.mark.slow
def test_both_spellings_of_a_published_budget_admit_their_scheme():
    network = build_network("mbv2", 10)
    table = neuron_table(network, (3, 64, 64))
    lists = StaticScheme((36, 39, 40, 41, 42, 45, 48, 49), (1, 1, 0, 0.25, 0.125, 0.125, 0.125, 0.125), 16)
    velocity = torch.ones(len(table), dtype=torch.float64)
    given = SelectionState(table, network, generator(0, "selection", 0), lists, velocity)
    assert limit("SU", given, 192311) == limit("SU", given, 192312) == 192312
    assert limit("velocity", given, 192311) == 192311
    given = replace(given, scheme=StaticScheme((27, 30, 33, 36, 39, 42, 45, 48), (1,) * 8, 34))
    assert limit("SU", given, 675540) == 675840
    with pytest.raises(ValueError, match="SU updates what its lists name, 675,840 parameters, more than the"):
        limit("SU", given, 600000)


def test_random_is_new_every_epoch_and_the_same_for_a_seed():
    a, b, again = (choose("random", state(epoch=epoch), 400) for epoch in (0, 1, 0))
    assert not torch.equal(a, b)
    assert torch.equal(a, again)


def test_velocity_ranks_by_its_size_per_parameter():
    velocity = torch.zeros(84, dtype=torch.float64)
    velocity[0], velocity[20], velocity[60] = 0.27, -0.18, 0.23  # stem 27, depthwise 9, pointwise 24
    chosen = choose("velocity", state(velocity=velocity), 9 + 27)
    table = neuron_table(toy(), SHAPE)
    assert table.selection(chosen)["depthwise"].tolist() == [0]
    assert chosen[0]
    assert not chosen[60]


def test_full_takes_everything_or_what_fits():
    given = state()
    assert choose("full", given, given.table.total_parameters).all()
    assert int(given.table.parameters[choose("full", given, 100)].sum()) <= 100


@pytest.mark.parametrize(
    ("policy", "missing"), [("SU", "scheme"), ("velocity", "velocity"), ("taylor", "gradients")]
)
def test_a_policy_says_what_it_lacks(policy, missing):
    with pytest.raises(ValueError, match=missing):
        choose(policy, state(scheme=None), 10)


def test_choosing_changes_nothing():
    network = toy()
    before = copy.deepcopy(network.state_dict())
    rng = torch.get_rng_state()
    choose("random", state(network), 300)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
