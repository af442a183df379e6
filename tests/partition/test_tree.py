"""The tree finds good strategies, spreads trials in flight, resumes, and repeats none."""

import pytest

from neq.partition.spaces import PublishedSpace, StageSpace
from neq.partition.strategies import strategies
from neq.partition.tree import TreeSearch

FORMS = {
    "stage": lambda seed: TreeSearch(seed),
    "published": lambda seed: TreeSearch(seed, "published", is_published=True),
}


def reward(sync):
    """Best where stages 1 and 4 have sums and no other stage but the last has any sync."""
    return 0.7 + 0.005 * sum(kind == good for kind, good in zip(sync, "nannana", strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_strategy_is_asked_for_once(form):
    search, found = FORMS[form](0), []
    while (sync := search.ask()) is not None:
        found.append(sync)
        search.tell(sync, reward(sync))
    assert sorted(found) == sorted(strategies())
    root = search.nodes[()]
    assert (root.trials, root.in_flight) == (1458, 0)


def test_the_tree_by_stage_finds_the_best_long_before_random_does():
    trials = []
    for seed in range(5):
        search, count, best = TreeSearch(seed), 0, 0.0
        while best < 0.73:
            sync = search.ask()
            search.tell(sync, reward(sync))
            count, best = count + 1, max(best, reward(sync))
        trials.append(count)
    assert sorted(trials)[2] < 80  # random needs 730 for the one best of 1458


@pytest.mark.parametrize("form", FORMS)
def test_trials_in_flight_are_others_and_spread(form):
    search = FORMS[form](3)
    asked = [search.ask() for _ in range(40)]
    assert len(set(asked)) == 40
    if form == "stage":
        assert len({sync[0] for sync in asked[:3]}) == 3
    for sync in reversed(asked):
        search.tell(sync, reward(sync))
    assert all(node.in_flight == 0 for node in search.nodes.values())
    assert search.nodes[()].trials == 40


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_search_that_is_told_its_results_again_goes_on_alike(form, in_flight):
    first, results = FORMS[form](5), []
    for _ in range(20 // in_flight):
        for sync in [first.ask() for _ in range(in_flight)]:
            results.append((sync, reward(sync)))
            first.tell(*results[-1])
    again = FORMS[form](5)
    for sync, value in results:
        again.tell(sync, value)
    assert again.nodes == first.nodes
    assert [again.ask() for _ in range(4)] == [first.ask() for _ in range(4)]


def test_strategies_without_widths_count_as_the_worst():
    search = TreeSearch(0)
    for sync in strategies():
        if sync[0] == "a":
            search.tell(sync, None)
        elif sync[1] == "a":
            search.tell(sync, reward(sync))
    assert search.nodes[("a",)].valid == 0
    assert search.nodes[("a",)].trials == 486
    assert "a" not in {search.ask()[0] for _ in range(20)}


@pytest.mark.parametrize("space", [StageSpace(), PublishedSpace()])
def test_results_are_those_of_every_node_above(space):
    search = TreeSearch(0, "published" if isinstance(space, PublishedSpace) else "stage")
    sync = tuple("annncna")
    search.tell(sync, 0.5)
    path = space.path_of(sync)
    assert {path[:length] for length in range(len(path) + 1)} == set(search.nodes)
    assert {(node.trials, node.total) for node in search.nodes.values()} == {(1, 0.5)}
