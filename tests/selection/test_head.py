import torch

from neq.networks.neurons import neuron_table
from neq.selection import SelectionState, head
from tests.toys import SHAPE, toy


def test_no_neuron_is_eligible():
    network = toy()
    table = neuron_table(network, SHAPE)
    scores = head.score(SelectionState(table, network, torch.Generator()))
    assert scores.shape == (len(table),)
    assert bool((scores == -torch.inf).all())
