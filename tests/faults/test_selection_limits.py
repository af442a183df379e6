"""Budgets and velocities at their limits, in whole runs of a network with every kind of layer."""

import pytest
import torch

from neq.budget.knapsack import MarginalCosts, fill_by_rank
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState
from neq.training import train
from neq.utils.seeds import generator
from tests.toys import SHAPE, toy
from tests.training.runs import run_of

TOTAL = neuron_table(toy(), SHAPE).total_parameters


@pytest.mark.parametrize("policy", ["velocity", "random"])
@pytest.mark.parametrize("budget", [0, 1, TOTAL, TOTAL + 1])
def test_budgets_of_nothing_one_all_and_more(tmp_path, policy, budget):
    with run_of(tmp_path, neuron_selection=policy, budget=budget, n_epochs=2) as (run, diary):
        before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
        train(run)
        after = run.network.state_dict()
    for report in diary.reports:
        used = report.metrics["Saved parameters"]["Number of saved parameters"]
        assert used == (TOTAL if budget >= TOTAL else 0)  # the smallest neuron has more than one parameter
    moved = [
        not torch.equal(before[f"{layer.name}.weight"], after[f"{layer.name}.weight"])
        for layer in run.table.layers
    ]
    assert all(moved) if budget >= TOTAL else not any(moved)
    assert not torch.equal(before["head.weight"], after["head.weight"])


@pytest.mark.parametrize(
    "velocity",
    [
        torch.zeros(84),
        torch.full((84,), 0.5),
        torch.full((84,), float("nan")),
        torch.tensor([float("nan"), *[0.1] * 83]),
    ],
    ids=["all zero", "tied", "all NaN", "one NaN"],
)
def test_velocities_of_dead_neurons(velocity):
    network = toy()
    table = neuron_table(network, SHAPE)
    state = SelectionState(table, network, generator(0, "selection", 1), None, velocity.double())
    budget = round(0.3 * table.total_parameters)
    costs = MarginalCosts.per_neuron(table.parameters)
    chosen, again = (fill_by_rank(POLICIES["velocity"].score(state), costs, budget) for _ in range(2))
    assert torch.equal(chosen, again)
    used = int(table.parameters[chosen].sum())
    assert used <= budget
    assert budget - used < int(table.parameters[~chosen].min())
    assert not chosen[0] or velocity.isnan().all() or not velocity[0].isnan()  # a NaN ranks last


@pytest.mark.slow
def test_a_dead_neuron_in_a_run_has_a_velocity(tmp_path):
    """Its outputs are zero before and after: they have not changed, and nothing becomes NaN."""
    with run_of(tmp_path, neuron_selection="velocity") as (run, diary):
        with torch.no_grad():
            run.network.stem.weight[3] = 0
        train(run)
    for report in diary.reports:
        assert report.velocity.isfinite().all()
