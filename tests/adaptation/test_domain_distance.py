"""How far domains lie apart."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from neq.adaptation.domain_distance import a_distance
from neq.cli import main
from tests.cli.test_adapt import FAST, domain


def normal(images, mean, features=20, seed=0):
    return np.random.default_rng(seed).normal(mean, 1, (images, features))


def test_domains_that_are_one_have_no_distance_and_others_the_highest():
    assert a_distance(normal(300, 0), normal(300, 0, seed=1)) < 0.2
    assert a_distance(normal(300, 0), normal(300, 9, seed=1)) == 2


def test_a_larger_domain_and_many_features_do_not_count_as_distance():
    small, large = normal(80, 0, 400), normal(280, 0, 400, seed=1)
    together = StandardScaler().fit_transform(np.concatenate([small, large]))
    domains = np.repeat([0, 1], [80, 280])
    in_sample = LinearSVC(C=0.01, dual="auto", random_state=0).fit(together, domains).score(together, domains)
    assert 2 * (2 * in_sample - 1) > 1.9  # of the images that it was fitted to
    majority = 280 / 360
    assert 2 * (2 * majority - 1) > 1  # of whatever classifier
    assert a_distance(small, large) < 0.5


@pytest.mark.slow
def test_a_run_is_mapped_before_and_after(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    domains = ["--source", domain(tmp_path / "photo", 0), "--target", domain(tmp_path / "sketch", 1)]
    assert main(["adapt", *domains, *FAST, "--method", "mcc"]) == 0
    capsys.readouterr()
    assert main(["results", "domains", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["A-distance before", "A-distance after"]
    assert all(0 <= float(line.split(":")[1]) <= 2 for line in lines[:2])
    assert (tmp_path / "run/domains.png").read_bytes().startswith(b"\x89PNG")
    assert main(["results", "domains", "run", "--output", "nowhere/x.png"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert main(["results", "domains", "photo"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
