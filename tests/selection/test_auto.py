import torch

from neq.selection import auto
from tests.selection.test_preselected import state


def test_neurons_are_worth_their_importance():
    given = state((5, 3, 1, 1, 0))
    assert torch.equal(auto.score(given), given.measured_importance().neurons)
