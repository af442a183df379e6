"""What a search writes is a scheme with its provenance."""

import json

import pytest

from neq.config import resolve, scheme
from neq.scheme_search import search
from neq.scheme_search.scheme_file import check_out, write_search
from neq.utils.errors import UserError
from tests.scheme_search.searching import Stub, costs_of

ASKED = {"method": "contributions", "seeds": [0], "run": {"net_name": "mcunet-in0"}}


@pytest.fixture
def found(tmp_path):
    with costs_of(tmp_path / "run", ratio=0.3) as costs:
        yield search(costs, Stub(), shares=(0.5, 1.0), controls=3)


def test_it_is_a_scheme_that_a_run_takes(found, tmp_path):
    path = tmp_path / "mine.yaml"
    write_search(path, found, ASKED, "neq train --scheme mine.yaml")
    entry, chosen = scheme(str(path)), found.choice.scheme
    assert (entry.manual_weight_idx, entry.weight_update_ratio) == (chosen.indices, chosen.ratios)
    assert (entry.network, entry.n_bias_update) == ("mcunet-in0", chosen.n_bias_update)
    assert entry.budget == found.costs.parameters(chosen) == found.choice.used
    config = resolve({}, {"scheme": str(path), "neuron_selection": "SU", "initialization": "SU"}).config
    assert config.backward_config.manual_weight_idx == chosen.indices


def test_it_says_where_it_comes_from(found, tmp_path):
    path = tmp_path / "mine.yaml"
    write_search(path, found, ASKED, "neq train --scheme mine.yaml")
    text, about = path.read_text(), json.loads((tmp_path / "mine.json").read_text())
    assert "mcunet-in0 (weights default) on digits, 12 px, batches of 32, norm mode frozen" in text
    assert "# Train it: neq train --scheme mine.yaml" in text
    assert about["asked"] == ASKED
    assert about["found"]["used"] == found.choice.used <= about["limit"]
    assert len(about["contributions"]) == len(found.parts)
    assert [each["name"] for each in about["trained"]] == ["found", "random 0", "random 1", "random 2"]
    assert about["rank_correlation"] == pytest.approx(1.0)
    before = path.read_bytes()
    write_search(path, found, ASKED, "neq train --scheme mine.yaml")
    assert path.read_bytes() == before


def test_scores_of_proxies_are_kept_with_their_rank_correlation(tmp_path):
    def score(head, parts):
        return {"fisher": {(conv, share): conv + share for conv, share in parts}}

    with costs_of(tmp_path / "run", ratio=1.0) as costs:
        found = search(costs, Stub(), shares=(0.5, 1.0), train=False, score=score)
        write_search(tmp_path / "mine.yaml", found, ASKED, "")
        about = json.loads((tmp_path / "mine.json").read_text())
        assert about["proxies"] == found.proxy_correlations
        assert 0 < about["proxies"]["fisher"] < 1
        layers = [layer.name for layer in costs.convs for _ in range(2)]
        expected = zip(layers, (0.5, 1.0) * len(costs.convs), strict=True)
        assert [(each["layer"], each["share"]) for each in about["scores"]["fisher"]] == list(expected)
        assert [each["score"] for each in about["scores"]["fisher"][2:4]] == [1.5, 2.0]


def test_files_of_another_search_stay(found, tmp_path):
    path = tmp_path / "mine.yaml"
    check_out(path, ASKED, force=False)
    write_search(path, found, ASKED, "")
    check_out(path, ASKED, force=False)
    other = {**ASKED, "seeds": [1]}
    with pytest.raises(UserError, match=r"mine\.yaml exists, of another search; --force replaces it"):
        check_out(path, other, force=False)
    check_out(path, other, force=True)
    (tmp_path / "mine.json").unlink()
    with pytest.raises(UserError, match=r"mine\.yaml exists"):
        check_out(path, ASKED, force=False)


@pytest.mark.parametrize(
    ("name", "reason"), [("scheme.txt", ".yaml file"), ("no/scheme.yaml", "does not exist")]
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path, name, reason):
    with pytest.raises(UserError, match=reason):
        check_out(tmp_path / name, ASKED, force=False)
