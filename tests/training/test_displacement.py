"""Moving what trains up a gradient, and back."""

import pytest
import torch
from torch import nn

from neq.training.displacement import Displacement
from neq.training.forward import NetworkForward
from neq.utils.allocations import peak_bytes


def weights():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]


def test_the_move_is_the_radius_along_the_gradient():
    first, second = weights()
    before = [first.detach().clone(), second.detach().clone()]
    with Displacement([first, second], lambda value: value) as displacement:
        displacement.move((first**2).sum() + 3 * second.sum(), 0.5)
        gradients = [2 * before[0], torch.full((4,), 3.0)]
        length = torch.cat([each.reshape(-1) for each in gradients]).norm()
        for parameter, start, gradient in zip((first, second), before, gradients, strict=True):
            assert torch.allclose(parameter - start, 0.5 * gradient / length)


def test_it_ends_where_it_began_to_the_bit_after_two_moves_or_an_error():
    first, second = weights()
    before = [first.detach().clone(), second.detach().clone()]

    def step():
        with Displacement([first, second], lambda value: value) as displacement:
            for _ in range(2):
                displacement.move((first**3).sum(), 0.1)
            assert not torch.equal(first, before[0])
            assert torch.equal(second, before[1])  # the loss does not depend on it
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        step()
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])


def test_no_gradient_is_no_move():
    (first, _), still = weights(), nn.Parameter(torch.ones(1))
    before = first.detach().clone()
    with Displacement([first], lambda value: value) as displacement:
        displacement.move((0 * first).sum(), 9.0)
        assert torch.equal(first, before)
    with Displacement([], lambda value: value) as displacement:
        displacement.move(still.sum(), 0.1)


def test_gradients_that_are_only_measured_move_nothing():
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    forward = NetworkForward(network, "fp32")
    forward.displace(forward(torch.ones(1, 2)).sum(), 0.1)
    assert torch.equal(network.weight, before)


def test_it_holds_two_copies_of_what_trains_at_most():
    parameter = nn.Parameter(torch.ones(1_000_000))
    with Displacement([parameter], lambda value: value.mul_(0.5)) as displacement:
        loss = (parameter * 2).sum()
        peak = peak_bytes(lambda: displacement.move(loss, 0.1), torch.device("cpu"))
    assert peak <= 2 * parameter.nbytes + 4096
