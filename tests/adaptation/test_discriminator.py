import math

import torch

from neq.adaptation.discriminator import Discriminator, domain_loss
from tests.adaptation.points import close

LOGITS = torch.tensor([0, math.log(3), 0, -math.log(3)], dtype=torch.float64)


def test_the_loss_of_known_logits():
    assert close(domain_loss(LOGITS), 0.490414626506)
    assert close(domain_loss(torch.zeros(4, dtype=torch.float64)), math.log(2))
    weights = torch.tensor([1, 0, 1, 0], dtype=torch.float64)
    assert close(domain_loss(LOGITS, weights), math.log(2) / 2)


def test_an_image_is_rated_by_itself():
    torch.manual_seed(0)
    net, x = Discriminator(3).double(), torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(net(x)[:2], net(x[:2]))
