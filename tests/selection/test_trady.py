import torch

from neq.selection import trady
from neq.selection.preselected import preselected
from tests.selection.test_preselected import state


def test_neurons_are_drawn_uniformly_within_the_preselected_layers():
    norms = (5, 3, 1, 1, 0)
    first, again, other = (trady.score(state(norms, layer_share=0.6, seed=seed)) for seed in (1, 1, 2))
    inside = preselected(state(norms, layer_share=0.6))
    assert bool((first[~inside] == -torch.inf).all())
    assert bool(((first[inside] >= 0) & (first[inside] < 1)).all())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
