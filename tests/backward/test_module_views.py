import torch
from torch import nn

from neq.backward.module_views import shadow, view


def test_a_shadow_shares_tensors_and_detaches_what_does_not_train():
    module = nn.BatchNorm2d(3).eval()
    made = shadow(module, ("bias",))
    assert made.bias is module.bias
    assert made.weight.data_ptr() == module.weight.data_ptr()
    assert not made.weight.requires_grad
    assert made.running_mean is module.running_mean
    assert made.training
    assert not module.training


def test_a_bound_forward_is_bound_to_the_shadow():
    module = nn.Linear(2, 2)
    module.forward = type(module).forward.__get__(module)
    assert shadow(module).forward.__self__ is not module


def test_a_view_replaces_modules_wherever_they_are_shared():
    shared = nn.Linear(2, 2)
    network = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared))
    other = nn.Identity()
    made = view(network, {shared: other})
    assert made[0] is other
    assert made[1][1] is other
    assert network[0] is shared
    x = torch.tensor([[-1.0, 2.0]])
    assert torch.equal(made(x), x.relu())
