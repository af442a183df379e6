import math

import torch

from neq.adaptation.scores import information, neighbourhood_density
from tests.adaptation.points import R, close


def test_the_information_of_known_probabilities():
    assert close(information(R.log()), 0.033822075569)
    assert math.isclose(information(60 * torch.eye(3)), math.log(3), abs_tol=1e-9)


def test_the_density_of_two_equal_images_and_one_apart():
    a, b = [0.0, 500.0], [500.0, 0.0]
    assert close(neighbourhood_density(torch.tensor([a, a, b])), 0.231049089043)


def test_the_density_in_parts_is_that_of_the_whole():
    torch.manual_seed(0)
    outputs = torch.randn(1500, 3)
    p = torch.nn.functional.normalize(outputs.double().softmax(1), dim=1)
    near = (p @ p.T / 0.05).fill_diagonal_(-math.inf).softmax(1)
    expected = -torch.special.xlogy(near, near).sum(1).mean()
    assert math.isclose(neighbourhood_density(outputs), expected, rel_tol=1e-9)
