"""The picture shows every contribution, and what was chosen."""

import pytest

from neq.results.pictures import save_picture
from neq.scheme_search import search
from neq.scheme_search.picture import search_picture
from tests.scheme_search.searching import Stub, costs_of


def test_large_losses_are_cut(tmp_path):
    with costs_of(tmp_path, ratio=0.7) as costs:
        found = search(costs, Stub(lambda scheme: 2.0 if scheme.n_bias_update else -80.0 * scheme.ratios[0]))
        top, right, *_ = search_picture(found).axes
    assert min(y for line in top.lines[:-1] for y in line.get_ydata()) == -2
    assert "cut at -2" in top.get_ylabel()
    assert max(right.lines[0].get_ydata()) == 2


def test_scores_of_a_proxy_stand_in_place_of_gains(tmp_path):
    def score(head, parts):
        return {"gradient_norm": {(conv, share): (1 + conv) * share for conv, share in parts}}

    with costs_of(tmp_path, ratio=0.7) as costs:
        found = search(costs, Stub(), "proxies", (0.5, 1.0), score=score)
        figure = search_picture(found)
    top, of_biases = figure.axes[:2]
    assert not of_biases.get_visible()
    drawn = {(x, y) for line in top.lines for x, y in zip(*line.get_data(), strict=True)}
    assert drawn >= {(conv, y) for (conv, _), y in found.scores["gradient_norm"].items()}
    assert len(top.patches) == sum(share > 0 for share in found.choice.scheme.ratios) > 0
    assert top.get_ylabel() == "% of the network's\ngradient_norm"
    assert f"{found.choice.predicted:.1f} % of the network's gradient_norm" in figure.get_suptitle()


@pytest.mark.parametrize(("unit", "label"), [("parameters", "parameters"), ("macs", "MACs")])
def test_it_shows_all_contributions_and_the_choice(tmp_path, unit, label):
    with costs_of(tmp_path, budget_unit=unit, ratio=0.7) as costs:
        found = search(costs, Stub(), shares=(0.5, 1.0), train=False)
        figure = search_picture(found)
        top, right, below, _ = figure.axes
        drawn = {(x, y) for line in top.lines for x, y in zip(*line.get_data(), strict=True)}
        gains = found.contributions
        assert drawn >= {(conv, gain) for (conv, _), gain in gains.weights.items()}
        assert len(top.patches) == sum(share > 0 for share in found.choice.scheme.ratios)
        assert set(zip(*right.lines[0].get_data(), strict=True)) == set(gains.biases.items())
        assert label in below.get_ylabel()
        paths = save_picture(figure, tmp_path / "scheme")
        assert all(path.stat().st_size > 10_000 for path in paths)
