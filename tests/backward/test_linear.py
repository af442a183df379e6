import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neq.backward.linear import SelectiveLinear, linear_stand_in
from neq.backward.trainable_layer import TrainableLayer
from neq.networks.parameter_slice import ParameterSlice


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("index", [None, [0, 2]])
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
def test_gradients_are_those_of_a_linear_map(axis, index, shape):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(s, generator=generator).double() for s in (shape, (3, 4), (3,)))
    part = ParameterSlice(None if index is None else torch.tensor(index), axis)
    stock = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    expected = F.linear(*stock)
    expected.square().sum().backward()
    own_x, leaf, own_bias = (t.clone().requires_grad_() for t in (x, part.take(weight), bias))
    out = SelectiveLinear.apply(own_x, leaf, weight, own_bias, part, None, None)
    out.square().sum().backward()
    assert torch.equal(out, expected)
    for found, right in ((own_x, stock[0].grad), (leaf, part.take(stock[1].grad)), (own_bias, stock[2].grad)):
        assert torch.allclose(found.grad, right, rtol=1e-12)


def test_only_chosen_input_channels_are_saved():
    module = nn.Linear(6, 3)
    part = ParameterSlice(torch.tensor([1, 4]), axis=1)
    leaf = nn.Parameter(part.take(module.weight.detach()))
    made = linear_stand_in(module, TrainableLayer(leaf, part, lambda: module.bias))
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)), lambda t: t):
        made(torch.randn(5, 6))
    assert shapes == [(5, 2)]


def test_a_layer_that_trains_whole_is_computed_by_torch():
    module = nn.Linear(6, 3)
    trains = TrainableLayer(module.weight, ParameterSlice(), lambda: module.bias, None, ("weight", "bias"))
    made = linear_stand_in(module, trains)
    assert trains.is_stock
    assert made.weight is module.weight
    assert "forward" not in vars(made)
