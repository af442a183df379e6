import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neq.budget.knapsack import MarginalCosts, fill_by_rank, fill_by_value, worth

FLAT = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, float("inf"), -float("inf")]), st.integers(1, 40)),
    max_size=60,
)
# Layers of (cost of a neuron, opening, depth, scores).
LAYERED = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(0, 30),
        st.integers(0, 60),
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def flat(prices):
    return MarginalCosts.per_neuron(torch.tensor(prices, dtype=torch.int64))


def layered(layers, base):
    sizes = torch.tensor([len(scores) for *_, scores in layers])
    prices, openings, depths = (torch.tensor([layer[i] for layer in layers]) for i in range(3))
    layer = torch.arange(len(layers)).repeat_interleave(sizes)
    scores = torch.tensor([score for *_, scores in layers for score in scores], dtype=torch.float64)
    return scores, MarginalCosts(prices.repeat_interleave(sizes), layer, openings, depths, base)


def literal_cost(chosen, layers, base):
    """The sum, word for word."""
    cost, deepest, place = base, 0, 0
    for price, opening, depth, scores in layers:
        count = sum(chosen[place : place + len(scores)])
        place += len(scores)
        if count:
            cost += opening + count * price
            deepest = max(deepest, depth)
    return cost + deepest


def assert_full(taken, costs, limit):
    """The budget holds, and none that was passed over would still fit."""
    assert costs.total(taken) <= limit
    for position in (~taken).nonzero().flatten().tolist():
        more = taken.clone()
        more[position] = True
        assert costs.total(more) > limit


def literal_fill(scores, costs, budget):
    """The rule, word for word."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    taken = []
    for i in order:
        if scores[i] != -float("inf") and costs[i] <= budget:
            taken.append(i)
            budget -= costs[i]
    return sorted(taken)


@given(FLAT, st.integers(0, 1200))
def test_fill_follows_the_rule(pairs, budget):
    scores = torch.tensor([score for score, _ in pairs], dtype=torch.float64)
    prices = [price for _, price in pairs]
    taken = fill_by_rank(scores, flat(prices), budget)
    assert taken.nonzero().flatten().tolist() == literal_fill(scores.tolist(), prices, budget)
    used = flat(prices).total(taken)
    assert used <= budget
    passed_over = torch.tensor(prices)[~taken & (scores != -torch.inf)]
    assert not len(passed_over) or budget - used < int(passed_over.min())


@given(LAYERED, st.integers(0, 20), st.integers(0, 200))
def test_openings_and_depth_are_paid_once(layers, base, limit):
    scores, costs = layered(layers, base)
    taken = fill_by_rank(scores, costs, limit)
    assert costs.total(taken) == literal_cost(taken.tolist(), layers, base)
    if base > limit:
        assert not taken.any()
        return
    assert_full(taken, costs, limit)


@given(LAYERED, st.integers(0, 20), st.integers(0, 200))
def test_by_value_stays_within_the_limit_and_near_the_best(layers, base, limit):
    values, costs = layered(layers, base)
    taken = fill_by_value(values, costs, limit)
    if base > limit:
        assert not taken.any()
        return
    assert_full(taken, costs, limit)
    if len(values) <= 8:
        best = max(
            float(values[torch.tensor(subset)].sum())
            for subset in itertools.product([False, True], repeat=len(values))
            if literal_cost(subset, layers, base) <= limit
        )
        # A greedy knapsack is within the most valuable single bundle of the best.
        bundle = max(sum(scores) for *_, scores in layers)
        assert float(values[taken].sum()) >= best - bundle


def problem(draw):
    """A small knapsack: values of at most 12 neurons, their costs, and a limit that admits some of them."""
    sizes = []
    while not 1 <= sum(sizes) <= 12:
        sizes = [draw.randint(1, 5) for _ in range(draw.randint(1, 4))]
    prices, openings, depths = (
        torch.tensor([draw.choice(allowed) for _ in sizes])
        for allowed in ([1, 2, 3, 5, 10, 40], [0, 0, 5, 30], [0, 0, 10, 60])
    )
    values = [draw.random() ** draw.choice([1, 4]) * draw.choice([1, 1, 10]) for _ in range(sum(sizes))]
    counts = torch.tensor(sizes)
    layer = torch.arange(len(sizes)).repeat_interleave(counts)
    costs = MarginalCosts(prices.repeat_interleave(counts), layer, openings, depths, draw.randint(0, 5))
    total = costs.total(torch.ones(len(values), dtype=torch.bool))
    limit = costs.base + int((total - costs.base) * draw.uniform(0.02, 0.95))
    return torch.tensor(values, dtype=torch.float64), costs, limit


def test_by_value_is_near_the_best_and_never_below_the_rank_or_a_single_neuron():
    """Compared with every subset: it fell to .22 of the best value, and below the rank in one of 15."""
    draw, ratios = random.Random(0), []
    for _ in range(300):
        values, costs, limit = problem(draw)
        subsets = (torch.arange(2 ** len(values))[:, None] >> torch.arange(len(values))) & 1
        affordable = [s for s in subsets.bool() if costs.total(s) <= limit] if len(values) <= 7 else None
        taken = worth(values, fill_by_value(values, costs, limit))
        alone = [v for v, one in zip(values.tolist(), torch.eye(len(values)).bool(), strict=True)
                 if costs.total(one) <= limit]  # fmt: skip
        assert taken >= max(alone, default=0.0)
        assert taken >= worth(values, fill_by_rank(values, costs, limit))
        if affordable and (best := max(worth(values, subset) for subset in affordable)) > 0:
            ratios.append(taken / best)
    assert len(ratios) > 100
    assert min(ratios) > 0.7
    assert sum(ratios) / len(ratios) > 0.99


def test_the_most_valuable_neuron_is_taken_though_others_are_worth_more_for_their_cost():
    assert fill_by_value(torch.tensor([1.1, 10.0]), flat([1, 10]), 10).tolist() == [False, True]


def test_by_value_prefers_many_cheap_neurons_to_one_deep_one():
    # The first layer's choice carries the gradient through everything, the last one's costs nothing more.
    layers = [(1, 0, 100, [10.0]), (1, 5, 0, [4.0, 4.0, 4.0])]
    values, costs = layered(layers, 0)
    assert fill_by_value(values, costs, 105).tolist() == [False, True, True, True]
    assert fill_by_rank(values, costs, 105).tolist() == [True, False, False, False]
    assert fill_by_value(values, costs, 109).all()


def test_by_value_opens_a_layer_for_what_it_holds():
    # Neuron by neuron the second layer looks dear: its first neuron pays for all.
    layers = [(10, 0, 0, [5.0, 5.0]), (1, 12, 0, [4.0, 4.0, 4.0])]
    values, costs = layered(layers, 0)
    assert fill_by_value(values, costs, 20).tolist() == [False, False, True, True, True]


def test_a_first_neuron_above_the_budget_is_skipped():
    taken = fill_by_rank(torch.tensor([3.0, 2.0, 1.0]), flat([100, 4, 4]), 9)
    assert taken.tolist() == [False, True, True]


def test_ties_go_by_position():
    assert fill_by_rank(torch.zeros(10), flat([3] * 10), 10).nonzero().flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("budget", [10, 11, 10**9])
def test_at_or_over_the_total_everything_is_taken(budget):
    assert fill_by_rank(torch.rand(5), flat([2] * 5), budget).all()
    assert fill_by_value(torch.rand(5) + 0.1, flat([2] * 5), budget).all()


def test_budget_zero_takes_nothing():
    assert not fill_by_rank(torch.rand(5), flat([1] * 5), 0).any()
    assert not fill_by_value(torch.rand(5), flat([1] * 5), 0).any()


def test_nan_comes_last_but_is_taken_where_it_fits():
    scores = torch.tensor([float("nan"), 0.0, float("nan")])
    assert fill_by_rank(scores, flat([1, 1, 1]), 2).tolist() == [True, True, False]
    assert fill_by_rank(scores, flat([1, 1, 1]), 3).all()
    assert fill_by_value(torch.tensor([float("nan"), 0.0, 1.0]), flat([1, 1, 1]), 2).tolist() == [
        False,
        True,
        True,
    ]
    assert fill_by_value(torch.tensor([-float("inf"), float("nan")]), flat([1, 1]), 5).tolist() == [
        False,
        True,
    ]
