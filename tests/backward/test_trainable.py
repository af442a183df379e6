import pytest
import torch

from neq.backward.trainable import checked, trainable_slices, trained_values, values_of
from neq.networks.neurons import neuron_table
from neq.networks.parameter_slice import ParameterSlice
from neq.utils.errors import UserError
from tests.toys import SHAPE, toy


def test_what_trains_in_each_norm_mode():
    network = toy()
    table = neuron_table(network, SHAPE)
    norms = {"train": {"norm1", "norm2", "norm3"}, "frontier": {"norm2", "norm3"}, "frozen": set()}
    for norm_mode, expected in norms.items():
        slices = trainable_slices(network, table, {"grouped": [3]}, norm_mode)
        assert {name.partition(".")[0] for name in slices} == {"grouped", "head"} | expected
        assert slices["grouped.weight"].index.tolist() == [3]
        assert slices["head.weight"].is_whole


def test_a_layer_of_which_every_channel_is_chosen_trains_whole():
    network = toy()
    slices = trainable_slices(network, neuron_table(network, SHAPE), {"hidden": range(16)}, "frozen")
    assert slices["hidden.weight"].is_whole
    assert slices["hidden.bias"].is_whole


def test_values_are_counted():
    network = toy()
    table = neuron_table(network, SHAPE)
    slices = trainable_slices(network, table, {"hidden": [2, 7]}, "frozen")
    assert trained_values(network, table, slices) == {"weights": 48, "biases": 2, "norms": 0, "head": 85}
    assert values_of(network, "hidden.weight", ParameterSlice(torch.tensor([1, 2]), axis=1)) == 32


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ({"head": [0]}, "selectable layer 'head' is unknown"),
        ({"hidden": [16]}, r"has the channels 0 \.\. 15, not \[16\]"),
        ({"hidden": [3, 3]}, "must be ascending, each once"),
        ({"hidden": [3, 1]}, "must be ascending, each once"),
    ],
)
def test_a_wrong_selection_is_refused(selection, reason):
    with pytest.raises(UserError, match=reason):
        checked(neuron_table(toy(), SHAPE), selection)


def test_a_layer_without_channels_is_left_out():
    assert checked(neuron_table(toy(), SHAPE), {"hidden": [], "stem": [1]}).keys() == {"stem"}
