import torch

from neq.adaptation.cdan import Cdan, CdanE, outer
from neq.adaptation.discriminator import domain_loss
from neq.adaptation.method import Both
from neq.adaptation.weights import certainty_weights
from tests.adaptation.points import close


def test_the_product_of_known_values():
    p, f = torch.tensor([[0.25, 0.75]]), torch.tensor([[1.0, 2.0]])
    assert close(outer(p, f)[0], [0.25, 0.5, 0.75, 1.5])


def test_predictions_condition_and_get_no_gradient():
    torch.manual_seed(0)
    features, outputs = torch.randn(4, 3), torch.randn(4, 2).requires_grad_()
    method = Cdan(3, 2)
    loss = method(Both(features, outputs))
    logits = method.discriminator(outer(outputs.softmax(1), features)).squeeze(1)
    assert torch.allclose(loss, domain_loss(logits))
    loss.backward()
    assert outputs.grad is None


def test_images_are_weighted_by_certainty_where_asked_for():
    torch.manual_seed(0)
    features, outputs = torch.randn(4, 3), 3 * torch.randn(4, 2)
    method = CdanE(3, 2)
    logits = method.discriminator(outer(outputs.softmax(1), features)).squeeze(1)
    found = method(Both(features, outputs))
    assert torch.allclose(found, domain_loss(logits, certainty_weights(outputs)))
    assert not torch.allclose(found, domain_loss(logits))
