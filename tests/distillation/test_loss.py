"""The losses of distillation against values by hand."""

import pytest
import torch
import torch.nn.functional as F

from neq.distillation.loss import features_loss, logits_loss

STUDENT = torch.tensor([[1.0, 0], [0, 2]], dtype=torch.float64)
TEACHER = torch.tensor([[2.0, 0], [0, 1]], dtype=torch.float64)


@pytest.mark.parametrize(("temperature", "expected"), [(1, 0.074869249674), (4, 0.120565660632)])
def test_the_divergence_of_logits_has_its_exact_values(temperature, expected):
    found = float(logits_loss(STUDENT, TEACHER, temperature))
    assert found == pytest.approx(expected, abs=1e-12)
    log_q, p = (STUDENT / temperature).log_softmax(1), (TEACHER / temperature).softmax(1)
    # A mean over images and classes is half of it.
    halved = temperature**2 * float(F.kl_div(log_q, p, reduction="none").mean())
    assert halved == pytest.approx(found / 2)


def test_the_divergence_is_from_the_teacher_to_the_student():
    p, q = TEACHER[:1].softmax(1), STUDENT[:1].softmax(1)
    expected, reverse = float((p * (p / q).log()).sum()), float((q * (q / p).log()).sum())
    assert float(logits_loss(STUDENT[:1], TEACHER[:1], 1)) == pytest.approx(expected, abs=1e-12)
    assert abs(expected - reverse) > 0.01


def test_the_gradient_keeps_its_size_at_high_temperatures():
    """T^2 KL has the gradient of the squared distance of centred logits over 2 K as T grows."""
    student = STUDENT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logits_loss(student, TEACHER, 1000.0), student)
    distance = STUDENT - TEACHER
    expected = (distance - distance.mean(1, keepdim=True)) / 2 / len(STUDENT)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_the_distance_of_features_is_the_mean_of_squares():
    assert float(features_loss(STUDENT, TEACHER)) == 0.5


def test_half_precision_is_computed_in_float32():
    found = logits_loss(STUDENT.bfloat16(), TEACHER.bfloat16(), 4)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(0.120565660632, rel=1e-6)
