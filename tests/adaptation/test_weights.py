import torch

from neq.adaptation.weights import certainty_weights
from tests.adaptation.points import R, close


def test_the_weights_of_known_probabilities():
    assert close(certainty_weights(R.log()), [0.977237925296, 1.022762074704])


def test_they_have_no_gradient():
    outputs = R.log().requires_grad_()
    assert not certainty_weights(outputs).requires_grad


def test_certain_images_count_up_to_twice():
    outputs = torch.tensor([[100.0, 0.0], [0.0, 0.0]])
    weights = certainty_weights(outputs)
    assert weights[0] > weights[1]
    assert torch.isfinite(weights).all()
