from neq.partition.picture import network_picture, search_picture
from neq.partition.search import Trial
from tests.partition.toys import base, two


def test_a_search_is_drawn_as_trials_and_tree(tmp_path):
    trials = [Trial("sync1_6_a", 50.0), Trial("sync2_36_ca", None), Trial("sync3_046_aca", 60.0)]
    figure = search_picture(trials, "toy")
    left, right = figure.axes
    assert list(left.lines[0].get_ydata()) == [50.0, 60.0]
    assert len(right.lines) == 3 + len({trial.sync[:depth] for trial in trials for depth in range(1, 8)})
    figure.savefig(tmp_path / "search.png")


def test_searches_without_a_result_are_drawn():
    assert len(search_picture([Trial("sync1_6_a")], "toy").axes) == 2


def test_networks_are_drawn_by_branch(tmp_path):
    figure = network_picture(two())
    (axes,) = figure.axes
    assert len(axes.patches) == 16
    assert len(axes.lines) == 3  # syncs
    figure.savefig(tmp_path / "network.png")
    assert len(network_picture(base()).axes[0].patches) == 8
