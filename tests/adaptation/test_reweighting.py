import pytest
import torch

from neq.adaptation.reweighting import domain_ratio, effective_images, label_ratio, normalized
from tests.adaptation.points import close

D = torch.tensor([0.5, 0.8, 0.2], dtype=torch.float64)


def test_the_weights_of_known_probabilities():
    assert close(domain_ratio(D, 10, 10), [1, 0.25, 4])
    assert close(domain_ratio(D, 20, 10), [2, 0.5, 8])


def test_label_shift_of_a_known_confusion():
    confusion = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    assert close(label_ratio(confusion, torch.tensor([0.3, 0.7], dtype=torch.float64)), [1 / 3, 5 / 3])


def test_classes_that_are_not_told_apart_have_no_weights():
    with pytest.raises(ValueError, match="does not tell some classes apart"):
        label_ratio(torch.full((2, 2), 0.25), torch.tensor([0.5, 0.5]))


def test_weights_are_clipped_and_have_the_mean_one():
    found = normalized(torch.tensor([1.0, 3.0, 100.0]), most=4)
    assert close(found, [0.375, 1.125, 1.5])
    assert effective_images(torch.ones(7)) == 7
    assert effective_images(torch.tensor([1.0, 0.0, 0.0])) == 1
