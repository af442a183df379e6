"""The picture shows every contribution, and what was chosen."""

import pytest

from neq.results.pictures import save_picture
from neq.scheme_search import search
from neq.scheme_search.picture import search_picture
from tests.scheme_search.searching import Stub, costs_of


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
