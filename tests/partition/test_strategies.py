import pytest

from neq.partition.strategies import strategies, strategy_name, strategy_of
from neq.utils.errors import UserError


def test_all_strategies_have_a_name_of_their_own():
    found = strategies()
    assert len(found) == len(set(found)) == 1458
    names = [strategy_name(sync) for sync in found]
    assert len(set(names)) == 1458
    assert [strategy_of(name) for name in names] == found
    counts = [sum(name.startswith(f"sync{count}_") for name in names) for count in range(1, 8)]
    assert counts == [2, 24, 120, 320, 480, 384, 128]


def test_published_names():
    assert strategy_name("annnana") == "sync3_046_aaa"
    assert strategy_of("sync3_046_caa") == tuple("cnnnana")
    assert strategy_of("sync1_6_a") == tuple("nnnnnna")


@pytest.mark.parametrize(
    "name",
    ["", "sync2_046_aaa", "sync3_045_aaa", "sync3_406_aaa", "sync3_046_aa", "sync3_046_ana", "sync2_66_aa"],
)
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="is unknown; sync3_046_aca has 3 syncs"):
        strategy_of(name)
