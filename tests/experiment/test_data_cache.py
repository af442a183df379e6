from types import SimpleNamespace

import pytest

from neq.experiment.data_cache import kept_open


def test_the_same_is_opened_once_and_the_latest_used_are_kept():
    said = []
    opened = kept_open(lambda name, seed=0: said.append((name, seed)) or SimpleNamespace(), most=2)
    first = opened("a")
    assert opened("a") is first
    second = opened("b")
    opened("a", seed=1)  # "a" goes, which was used before "b"
    assert opened("b") is second
    assert opened("a") is not first
    assert said == [("a", 0), ("b", 0), ("a", 1), ("a", 0)]


def test_what_could_not_be_opened_is_tried_again():
    answers = iter((OSError("away"), None))

    def opening(name):
        if (answer := next(answers)) is not None:
            raise answer
        return name

    opened = kept_open(opening)
    with pytest.raises(OSError, match="away"):
        opened("a")
    assert opened("a") == "a"
