"""The search on a toy whose gains are known."""

from importlib import import_module

import pytest

from neq.networks.build import build_network
from neq.scheme_search import Measured, search
from neq.scheme_search.contributions import TIE, Contributions
from neq.scheme_search.costs import HEAD
from neq.selection import StaticScheme
from neq.utils.errors import UserError
from tests.scheme_search.searching import Stub, additive, costs_of, every_scheme

SHARES = (0.5, 1.0)


@pytest.mark.parametrize(("unit", "ratio"), [("parameters", 0.3), ("macs", 0.5)])
@pytest.mark.parametrize("method", ["contributions", "evolution"])
def test_the_best_sum_within_the_budget_is_found(tmp_path, unit, ratio, method):
    with costs_of(tmp_path, budget_unit=unit, ratio=ratio) as costs:
        found = search(costs, Stub(), method, SHARES)
        assert found.choice.used == costs.used(found.choice.scheme) <= costs.limit
        schemes = every_scheme(costs, found.contributions.biases, SHARES)
        best = max(additive(each) for each in schemes if costs.used(each) <= costs.limit)
        assert found.choice.predicted == pytest.approx(best)
        assert found.choice.predicted == pytest.approx(additive(found.choice.scheme))


@pytest.mark.slow
def test_in_bytes_the_budget_holds_exactly_and_no_random_scheme_is_worth_more(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("neq.scheme_search.search"), "BIASES", (0.5,))
    network = build_network("mcunet-in0", 10)
    settings = {"image_size": 48, "base_batch_size": 4, "budget_unit": "bytes", "budget": 300_000}
    with costs_of(tmp_path, network=network, **settings) as costs:
        found = search(costs, Stub(), shares=SHARES, controls=2)
        assert 0.9 * costs.limit < found.choice.used == costs.used(found.choice.scheme) <= costs.limit
        assert found.choice.predicted > max(each.predicted for each in found.trained if each.name != "found")
        assert all(each.used <= costs.limit for each in found.trained)


def test_only_what_fits_by_itself_is_measured_and_budgets_share_it(tmp_path):
    asked = []
    for ratio in (0.1, 0.6):
        with costs_of(tmp_path, ratio=ratio) as costs:
            measure = Stub()
            search(costs, measure, shares=SHARES, train=False)
            assert measure.asked["contributions"][0] == HEAD
            assert all(costs.used(scheme) <= costs.limit for scheme in measure.asked["contributions"])
            assert "controls" not in measure.asked
            asked.append(set(measure.asked["contributions"]))
    assert asked[0] < asked[1]


def test_shares_that_round_to_the_same_neurons_are_measured_once(tmp_path):
    with costs_of(tmp_path, ratio=1.0) as costs:
        measure = Stub()
        search(costs, measure, shares=(0.01, 0.5, 0.51, 1.0))
        ratios = {each.ratios[0] for each in measure.asked["contributions"] if each.n_bias_update == 0}
        assert ratios == {0.0, 0.5, 1.0}


def test_controls_test_the_sum(tmp_path):
    with costs_of(tmp_path, ratio=0.5) as costs:
        measure = Stub()
        found = search(costs, measure, shares=SHARES, controls=6)
        again = search(costs, Stub(), shares=SHARES, controls=6)
    assert [each.name for each in found.trained] == ["found", *(f"random {number}" for number in range(6))]
    assert found.trained == again.trained
    assert all(each.used <= costs.limit for each in found.trained)
    assert all(each.gain == pytest.approx(each.predicted) for each in found.trained)
    assert found.rank_correlation == pytest.approx(1.0)
    assert set(measure.asked["controls"]) == {each.scheme for each in found.trained}


def test_proxies_are_compared_with_the_contributions_by_rank(tmp_path):
    """Ranks of gains 1 2 3 4, of scores 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 (16 - 1)) = .8."""

    def score(head, parts):
        assert head.val_top1 == 50
        return {
            "fisher": dict(zip(parts, (0.1, 30, 20, 1e9), strict=True)),
            "velocity": dict.fromkeys(parts, 1.0),
        }

    with costs_of(tmp_path, ratio=1.0) as costs:
        gain = lambda scheme: scheme.ratios[0] * (scheme.indices[0] + 1)  # noqa: E731
        found = search(costs, Stub(gain), shares=(1.0,), train=False, score=score)
    assert found.proxy_correlations == {"fisher": pytest.approx(0.8), "velocity": None}


def test_a_part_that_diverges_is_not_chosen(tmp_path):
    def gain(scheme):
        return None if 2 in scheme.indices and scheme.ratios == (1.0,) else additive(scheme)

    with costs_of(tmp_path, ratio=1.0) as costs:
        found = search(costs, Stub(gain), shares=SHARES, controls=2)
    shares = dict(zip(found.choice.scheme.indices, found.choice.scheme.ratios, strict=True))
    assert shares[2] == 0.5
    assert (2, 1.0) not in found.contributions.weights


def test_a_head_that_diverges_ends_the_search(tmp_path):
    with costs_of(tmp_path, ratio=1.0) as costs, pytest.raises(UserError, match="lower --base_lr"):
        search(costs, Stub(lambda scheme: None))


def test_a_scheme_whose_training_diverges_has_no_gain(tmp_path):
    def gain(scheme):
        return additive(scheme) if len(scheme.indices) == 1 else None

    with costs_of(tmp_path, ratio=1.0) as costs:
        found = search(costs, Stub(gain), shares=SHARES)
    assert found.trained[0].gain is None
    assert found.rank_correlation is None


def test_the_loss_decides_between_equal_accuracies():
    head, lower = Measured(50.0, 2.0, 0.0), Measured(50.0, 1.5, 0.0)
    assert lower.gain(head) == pytest.approx(0.5 * TIE)
    assert Measured(51.0, 9.0, 0.0).gain(head) > lower.gain(head)


def test_predictions_interpolate_biases_and_stop_at_what_was_measured():
    gains = Contributions({(1, 0.5): 1.0}, {0: 0.0, 4: 2.0})
    assert gains.predicted(StaticScheme((0, 1), (0.0, 0.5), 2)) == 2.0
    assert gains.predicted(StaticScheme((1,), (1.0,))) is None
    assert gains.predicted(StaticScheme((1,), (0.5,), 5)) is None
