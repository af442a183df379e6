import torch

from neq.adaptation.dann import Dann
from neq.adaptation.discriminator import domain_loss
from neq.adaptation.method import Both
from neq.adaptation.reversal import strength_at


def test_features_get_the_discriminators_gradient_turned_round():
    torch.manual_seed(0)
    method = Dann(3, 2)
    features, outputs = torch.randn(8, 3, requires_grad=True), torch.randn(8, 2)
    plain = domain_loss(method.discriminator(features).squeeze(1))
    (gradient,) = torch.autograd.grad(plain, features)
    learned = torch.autograd.grad(
        domain_loss(method.discriminator(features).squeeze(1)), list(method.parameters())
    )
    loss = method(Both(features, outputs, progress=0.1))
    loss.backward()
    assert torch.equal(loss, plain)
    assert torch.allclose(features.grad, -strength_at(0.1) * gradient)
    assert all(torch.allclose(p.grad, g) for p, g in zip(method.parameters(), learned, strict=True))
