import pytest

from neq.partition.spaces import PublishedSpace, StageSpace
from neq.partition.strategies import strategies


@pytest.mark.parametrize("space", [StageSpace(), PublishedSpace()], ids=["stage", "published"])
def test_the_leaves_are_the_strategies(space):
    found, paths = [], [()]
    while paths:
        path = paths.pop()
        children = [(*path, action) for action in space.actions(path)]
        if not children:
            assert space.leaves(path) == 1
            found.append(space.sync_of(path))
            assert space.path_of(found[-1]) == path
        else:
            assert space.leaves(path) == sum(map(space.leaves, children))
        paths += children
    assert sorted(found) == sorted(strategies())


def test_the_published_order_is_count_stages_kinds():
    space = PublishedSpace()
    assert space.path_of(tuple("annncna")) == (3, 0, 4, "a", "c", "a")
    assert space.path_of(tuple("nnnnnnc")) == (1, "c")
    assert space.actions((3,)) == (0, 1, 2, 3, 4)
    assert space.actions((3, 4)) == (5,)
    assert space.actions((7, 0, 1, 2, 3, 4)) == (5,)
    assert [space.leaves((count,)) for count in range(1, 8)] == [2, 24, 120, 320, 480, 384, 128]
