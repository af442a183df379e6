import torch

from neq.budget.knapsack import MarginalCosts, fill_by_rank
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState, last
from tests.toys import SHAPE, toy


def test_whole_layers_are_taken_from_the_last_one_on():
    network = toy()
    table = neuron_table(network, SHAPE)
    scores = last.score(SelectionState(table, network, torch.Generator()))
    limit = sum(
        each.neurons * each.parameters for each in table.layers if each.name in ("pointwise", "hidden")
    )
    taken = fill_by_rank(scores, MarginalCosts.per_neuron(table.parameters), limit)
    assert {name: len(chosen) for name, chosen in table.selection(taken).items()} == {
        "pointwise": 24,
        "hidden": 16,
    }
