import torch

from neq.selection import medyate
from neq.selection.preselected import preselected
from tests.selection.test_preselected import state


def test_neurons_are_drawn_in_proportion_to_their_importance():
    """The first of a draw is neuron i with probability I_i / sum I: here 1/4 and 3/4 by layer size."""
    given = state((8**0.5, 3 * 12**0.5, 0, 0, 0), layer_share=1.0)
    stem, grouped = (given.table.slice_of(name) for name in ("stem", "grouped"))
    hits, draws = 0, 2000
    for _ in range(draws):
        first = int(medyate.score(given).argmax())
        assert stem.start <= first < grouped.stop
        hits += first < stem.stop
    share = 8 * 1 / (8 * 1 + 12 * 3)
    # Five standard deviations of a binomial share.
    assert abs(hits / draws - share) < 5 * (share * (1 - share) / draws) ** 0.5


def test_nothing_is_drawn_outside_the_preselected_layers():
    given = state((5, 3, 1, 1, 0), layer_share=0.6)
    scores = medyate.score(given)
    inside = preselected(given)
    assert bool((scores[~inside] == -torch.inf).all())
    assert bool(scores[inside].isfinite().all())
