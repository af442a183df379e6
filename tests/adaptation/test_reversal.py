import torch

from neq.adaptation.reversal import reversed_gradient, strength_at
from tests.adaptation.points import close


def test_forward_is_the_identity_and_backward_turns_the_gradient_round():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = reversed_gradient(x, 0.5)
    y.backward(torch.tensor([3.0, -4.0], dtype=torch.float64))
    assert torch.equal(y, x)
    assert close(x.grad, [-1.5, 2])


def test_the_strength_follows_the_progress_of_the_run():
    assert strength_at(0) == 0
    assert close(strength_at(0.1), 0.462117157260)
    assert close(strength_at(0.5), 0.986614298151)
    # A ramp over 1,000 steps has not got far when a run of 750 steps ends.
    over_steps = 2 / (1 + torch.tensor(-0.75, dtype=torch.float64).exp()) - 1
    assert round(float(over_steps), 3) == 0.358
    assert strength_at(1) > 0.9999


def test_the_discriminator_learns_at_full_strength_whatever_the_strength():
    weight = torch.tensor(2.0, requires_grad=True)
    features = torch.tensor([1.0], requires_grad=True)
    (weight * reversed_gradient(features, 0.1)).sum().backward()
    assert weight.grad == 1
    scaled = torch.tensor(2.0, requires_grad=True)
    (0.1 * scaled * reversed_gradient(features.detach(), 1)).sum().backward()  # the fault: the loss is scaled
    assert scaled.grad != weight.grad
