import torch

from neq.adaptation.dan import Dan, kernel, mmd
from neq.adaptation.method import Both
from tests.adaptation.points import Q, close


def test_the_loss_of_known_points():
    one = kernel(Q, [1.0])
    assert close(mmd(one), 0.696117721389)
    assert close(mmd(one, biased=True), 0.877386968311)
    assert close(mmd(kernel(Q)), 2.903731552689)
    assert close(mmd(kernel(Q), biased=True), 4.858617853428)
    assert close(Dan(1, 2)(Both(Q, torch.zeros(4, 2))), 2.903731552689)


def test_the_linear_time_form_may_be_negative_and_another_adds_a_constant():
    k = kernel(torch.tensor([[0.0], [5.0], [5.0], [0.0]]), [1.0])
    pairs = k[0, 1] + k[2, 3] - k[0, 3] - k[2, 1]
    assert pairs < 0
    assert mmd(k, biased=True) >= 0
    one = kernel(Q, [1.0])
    assert close(mmd(one) + 2 / (2 - 1), 2.696117721389)
    assert not close(mmd(one), 2.696117721389)


def test_the_width_has_no_gradient():
    x = Q.clone().requires_grad_()
    mmd(kernel(x, [1.0])).backward()
    again = Q.clone().requires_grad_()
    distances = (again - again.T).square()
    mmd(torch.exp(-distances / (2 * 2.5))).backward()
    assert torch.allclose(x.grad, again.grad)
