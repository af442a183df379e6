import pytest
import torch
import torch.nn.functional as F

from neq.networks.neurons import neuron_table
from neq.selection import SelectionState, batch_gradients, taylor
from neq.utils.errors import UserError
from tests.toys import SHAPE, batch, toy


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
def test_a_neuron_scores_the_first_order_change_of_the_loss_by_its_weights(unit):
    network = toy()
    images, labels = batch()
    table = neuron_table(network, SHAPE, unit=unit)
    gradients = batch_gradients(network, table, lambda forward: F.cross_entropy(forward(images), labels))
    scores = taylor.score(SelectionState(table, network, torch.Generator(), gradients=gradients))
    assert scores.shape == (len(table),)
    for layer in table.layers:
        weight = network.get_parameter(f"{layer.name}.weight").detach()
        of_layer = scores[table.slice_of(layer.name)]
        for channel in range(layer.neurons):
            w, g = (x.select(layer.axis, channel) for x in (weight, gradients[f"{layer.name}.weight"]))
            assert float(of_layer[channel]) == pytest.approx(float((w * g).abs().sum()), rel=1e-12)


def test_without_gradients_there_is_nothing_to_rank_by():
    network = toy()
    with pytest.raises(UserError, match="taylor has nothing to rank by before gradients are measured"):
        taylor.score(SelectionState(neuron_table(network, SHAPE), network, torch.Generator()))
