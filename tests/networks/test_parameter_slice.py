import pytest
import torch
from torch import nn

from neq.networks.parameter_slice import ParameterSlice, named_tensor


@pytest.mark.parametrize("axis", [0, 1])
def test_taking_putting_and_spreading(axis):
    whole = torch.arange(12.0).view(3, 4)
    part = ParameterSlice(torch.tensor([0, 2]), axis)
    values = part.take(whole)
    assert torch.equal(values, whole[[0, 2]] if axis == 0 else whole[:, [0, 2]])
    spread = part.spread(values, whole.shape[axis])
    assert spread.shape == whole.shape
    assert torch.equal(part.take(spread), values)
    assert spread.sum() == values.sum()
    copy = whole.clone()
    assert part.put(copy, values + 1) is copy
    assert torch.equal(part.take(copy), values + 1)
    assert (copy != whole).sum() == values.numel()


def test_a_whole_parameter():
    whole, part = torch.arange(3.0), ParameterSlice()
    taken = part.take(whole)
    assert part.is_whole
    assert torch.equal(taken, whole)
    assert taken is not whole
    assert part.spread(taken, 3) is taken


def test_comparing_slices():
    one, same, other = (ParameterSlice(torch.tensor(index)) for index in ([0, 1], [0, 1], [0, 2]))
    assert one.same(same)
    assert not one.same(other)
    assert not one.same(ParameterSlice())
    assert not one.same(ParameterSlice(torch.tensor([0, 1]), axis=1))
    assert ParameterSlice().same(ParameterSlice(axis=1))


def test_tensors_by_name():
    network = nn.Sequential(nn.BatchNorm2d(2, affine=False), nn.Linear(2, 2))
    assert named_tensor(network, "0.running_mean") is network[0].running_mean
    assert named_tensor(network, "1.weight") is network[1].weight
    for name in ("0.weight", "1.in_features", "2.weight"):
        with pytest.raises(AttributeError):
            named_tensor(network, name)
