import torch

from neq.adaptation.ddc import Ddc
from neq.adaptation.method import Both
from tests.adaptation.points import P_SOURCE, P_TARGET, close


def test_the_loss_of_known_points():
    assert close(Ddc(2, 2)(Both(torch.cat([P_SOURCE, P_TARGET]), torch.zeros(8, 2))), 2)
