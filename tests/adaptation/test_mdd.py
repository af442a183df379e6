import math

import torch

from neq.adaptation.mdd import Mdd, disparity
from neq.adaptation.method import Both
from tests.adaptation.points import close

SECOND = torch.tensor([[math.log(3), 0]], dtype=torch.float64)


def test_the_loss_of_known_outputs():
    source = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    assert close(disparity(SECOND, source, SECOND, target), 1.438410362259)


def test_a_certain_second_head_has_a_finite_loss():
    certain = torch.tensor([[60.0, 0.0]])
    loss = disparity(certain, certain, certain, certain)
    assert torch.isfinite(loss)
    assert not torch.isfinite(-(1 - certain.softmax(1)[0, 0]).log())


def test_the_first_head_gets_no_gradient():
    outputs = torch.randn(4, 2).requires_grad_()
    features = torch.randn(4, 3).requires_grad_()
    Mdd(3, 2)(Both(features, outputs)).backward()
    assert outputs.grad is None
    assert features.grad is not None
