import pytest
import torch

from neq.networks.neurons import neuron_table
from neq.selection import Importance, SelectionState
from neq.selection.preselected import preselected
from neq.utils.errors import UserError
from tests.toys import SHAPE, toy

LAYERS = ("stem", "grouped", "depthwise", "pointwise", "hidden")


def state(norms, layer_bytes=(1, 1, 1, 1, 1), layer_share=0.9, seed=0):
    """A state whose layers have neurons of equal importance, with these norms over each layer."""
    network = toy()
    table = neuron_table(network, SHAPE)
    sizes = torch.tensor([float(layer.neurons) for layer in table.layers])
    each = torch.tensor(norms, dtype=torch.float64) / sizes.sqrt()
    neurons = torch.cat([value.repeat(int(size)) for value, size in zip(each, sizes, strict=True)])
    importance = Importance(neurons, torch.tensor(layer_bytes, dtype=torch.float64))
    stream = torch.Generator().manual_seed(seed)
    return SelectionState(table, network, stream, importance=importance, layer_share=layer_share)


@pytest.mark.parametrize(
    ("norms", "layer_bytes", "layer_share", "expected"),
    [
        ((5, 3, 1, 1, 0), (1, 1, 1, 1, 1), 0.5, {"stem"}),
        ((5, 3, 1, 1, 0), (1, 1, 1, 1, 1), 0.6, {"stem", "grouped"}),
        ((5, 3, 1, 1, 0), (1, 1, 1, 1, 1), 1.0, {"stem", "grouped", "depthwise", "pointwise"}),
        ((5, 3, 1, 1, 0), (100, 1, 1, 1, 1), 0.5, {"grouped"}),
        ((0, 0, 0, 0, 0), (1, 1, 1, 1, 1), 0.9, set()),
    ],
)
def test_layers_are_kept_until_they_hold_the_share(norms, layer_bytes, layer_share, expected):
    given = state(norms, layer_bytes, layer_share)
    assert set(given.table.selection(preselected(given))) == expected


def test_without_importance_there_is_nothing_to_rank_by():
    network = toy()
    with pytest.raises(UserError, match="before the importance of neurons is measured"):
        preselected(SelectionState(neuron_table(network, SHAPE), network, torch.Generator()))
