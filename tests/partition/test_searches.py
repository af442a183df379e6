import pytest

from neq.partition.searches import SEARCHES
from neq.partition.strategies import strategies
from tests.partition.test_tree import reward


@pytest.mark.parametrize("name", SEARCHES)
def test_no_search_asks_twice_and_all_resume(name):
    search, results = SEARCHES[name](2), []
    for _ in range(15):
        sync = search.ask()
        results.append((sync, reward(sync)))
        search.tell(*results[-1])
    assert len({sync for sync, _ in results}) == 15
    again = SEARCHES[name](2)
    for result in results:
        again.tell(*result)
    assert again.ask() == search.ask()
    assert again.ask() not in {sync for sync, _ in results}


@pytest.mark.parametrize("name", ["random", "exhaustive"])
def test_lists_end(name):
    search = SEARCHES[name](0)
    found = [search.ask() for _ in range(1458)]
    assert sorted(found) == sorted(strategies())
    assert search.ask() is None


def test_tpe_falls_back_to_what_is_left():
    search, left = SEARCHES["tpe"](0), tuple("acacaca")
    for sync in strategies():
        if sync != left:
            search.tell(sync, None if sync[0] == "n" else 0.5)
    assert search.ask() == left
    assert search.ask() is None
    search.tell(left, 0.6)
