import torch
from torch import nn

from neq.backward.trainable_slices import TrainableSlices
from neq.networks.parameter_slice import ParameterSlice


def test_a_whole_parameter_is_its_own_leaf_and_a_slice_a_copy():
    network = nn.Sequential(nn.Linear(3, 4))
    network[0].weight.grad = torch.zeros(4, 3)
    part = ParameterSlice(torch.tensor([0, 3]))
    slices = TrainableSlices(network, {"0.weight": part, "0.bias": ParameterSlice()})
    assert slices.by_name["0.bias"] is network[0].bias
    assert slices.by_name["0.weight"].shape == (2, 3)
    assert slices.in_place(network[0]) == ("bias",)
    assert network[0].weight.grad is None  # it does not train as a whole


def test_steps_are_written_back_and_changes_of_the_network_taken_over():
    network = nn.Sequential(nn.Linear(3, 4))
    part = ParameterSlice(torch.tensor([1]))
    slices = TrainableSlices(network, {"0.weight": part})
    leaf = slices.by_name["0.weight"]
    with torch.no_grad():
        leaf.fill_(7)
    slices.write_back()
    assert network[0].weight[1].tolist() == [7, 7, 7]
    with torch.no_grad():
        leaf.fill_(8)
    slices.reconcile()  # a step that was not written back
    assert network[0].weight[1].tolist() == [8, 8, 8]
    with torch.no_grad():
        network[0].weight.fill_(9)
    slices.reconcile()
    assert leaf.tolist() == [[9, 9, 9]]
    version = network[0].weight._version
    slices.reconcile()  # nothing changed: nothing is written
    assert network[0].weight._version == version
