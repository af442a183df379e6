import torch

from neq.adaptation.dan import kernel, mmd
from neq.adaptation.jan import Jan, kernel_of_predictions
from neq.adaptation.method import Both
from tests.adaptation.points import Q, close

PREDICTED = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], dtype=torch.float64)


def test_the_loss_of_known_points():
    product = kernel(Q, [1.0]) * kernel_of_predictions(PREDICTED)
    assert close(mmd(product), 0.456743077021)
    assert close(mmd(product, biased=True), 0.822735682762)


def test_predictions_are_probabilities_of_the_outputs():
    expected = mmd(kernel(Q) * kernel_of_predictions(PREDICTED))
    assert torch.allclose(Jan(1, 2)(Both(Q, PREDICTED.log() + 3)), expected)
