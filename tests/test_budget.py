import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neq.budget import budget_amount, fill


def literal_fill(scores, costs, budget):
    """The rule, word for word."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    taken = []
    for i in order:
        if scores[i] != -float("inf") and costs[i] <= budget:
            taken.append(i)
            budget -= costs[i]
    return sorted(taken)


neurons = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, float("inf"), -float("inf")]), st.integers(1, 40)),
    max_size=60,
)


@given(neurons, st.integers(0, 1200))
def test_fill_follows_the_rule(pairs, budget):
    scores = torch.tensor([score for score, _ in pairs], dtype=torch.float64)
    costs = torch.tensor([cost for _, cost in pairs], dtype=torch.int64)
    taken = fill(scores, costs, budget)
    assert taken.nonzero().flatten().tolist() == literal_fill(scores.tolist(), costs.tolist(), budget)
    used = int(costs[taken].sum())
    assert used <= budget
    passed_over = costs[~taken & (scores != -torch.inf)]
    assert not len(passed_over) or budget - used < int(passed_over.min())


def test_a_first_neuron_above_the_budget_is_skipped():
    taken = fill(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([100, 4, 4]), 9)
    assert taken.tolist() == [False, True, True]


def test_ties_go_by_position():
    taken = fill(torch.zeros(10), torch.full((10,), 3), 10)
    assert taken.nonzero().flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("budget", [10, 11, 10**9])
def test_at_or_over_the_total_everything_is_taken(budget):
    assert fill(torch.rand(5), torch.full((5,), 2), budget).all()


def test_budget_zero_takes_nothing():
    assert not fill(torch.rand(5), torch.ones(5, dtype=torch.int64), 0).any()


def test_nan_comes_last_but_is_taken_where_it_fits():
    scores = torch.tensor([float("nan"), 0.0, float("nan")])
    assert fill(scores, torch.tensor([1, 1, 1]), 2).tolist() == [True, True, False]
    assert fill(scores, torch.tensor([1, 1, 1]), 3).all()


@pytest.mark.parametrize(
    ("ratio", "amount"),
    [
        (0.0878233231, 192312),
        (0.1508110478, 330240),
        (0.212187637, 464640),
        (0.2735642262, 599040),
        (0.3084995616, 675540),
        (0, 0),
        (1, 2189760),
        (1.5, 3284640),
    ],
)
def test_ratios_are_rounded_not_truncated(ratio, amount):
    assert budget_amount(2189760, ratio=ratio) == amount


def test_an_absolute_budget_is_itself():
    assert budget_amount(100, budget=192311) == 192311


@pytest.mark.parametrize("given", [{}, {"ratio": 0.5, "budget": 3}, {"budget": -1}, {"ratio": -0.5}])
def test_an_impossible_budget_is_refused(given):
    with pytest.raises(ValueError, match="budget"):
        budget_amount(100, **given)
